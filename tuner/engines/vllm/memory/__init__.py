"""What vLLM takes of a GPU's memory, predicted and learned."""
