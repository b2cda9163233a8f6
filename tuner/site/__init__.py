"""The user's site: who holds the GPUs, taking over and giving back, clean, doctor."""
