"""What a model's files say of it."""
