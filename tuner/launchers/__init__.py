"""Ways to bring a server up, and to leave nothing behind."""
