"""For those who add a launcher, an engine or a sampler, or who doubt the proof: conformance suites, and its rule."""

from tuner.testing.proof import Died, decide

__all__ = ["Died", "decide"]
