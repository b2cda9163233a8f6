"""The commands: parse, call, print. Nothing heavy is imported before it is needed."""

from tuner.cli.entry import app, main

__all__ = ["app", "main"]
