"""A deployed server under its real traffic, held against what its profile promised."""
