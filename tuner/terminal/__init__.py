"""The live view and the closing table."""
