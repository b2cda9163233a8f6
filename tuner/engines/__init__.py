"""What tuner knows of the programs that serve models."""
