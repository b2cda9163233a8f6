"""Conformance suites and fakes for those who add a launcher, an engine or a sampler."""
