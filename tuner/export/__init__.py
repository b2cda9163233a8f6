"""The forms that a winner is written in."""
