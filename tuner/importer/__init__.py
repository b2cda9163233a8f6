"""Reads what somebody deploys an engine with, whatever it is written as: one module for each kind of source."""
