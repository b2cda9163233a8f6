"""Faults on purpose, against the product's own commands: `make faults` prints tried and survived for each kind."""
