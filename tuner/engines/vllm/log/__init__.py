"""What vLLM says in its log."""
