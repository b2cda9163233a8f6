"""Deploys a winner in the place of what runs, keeps it only if its proof holds there, and goes back."""
