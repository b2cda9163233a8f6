"""One trial, and waiting for its server."""
