"""Servers in containers, and all else that tuner asks of a Docker engine; nowhere else is the SDK imported."""
