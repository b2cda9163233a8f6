"""Changes a deployment's own file in place: only what differs from a winner, and nothing else of its text."""
