"""Servers that run already, measured and compared with a study's own workload, records and statistics."""
