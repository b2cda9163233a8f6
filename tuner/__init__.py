"""tuner: finds, proves and writes back the fastest configuration of an LLM server."""

__version__ = "0.1.0"
