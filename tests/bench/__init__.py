"""Measurements of tuner itself: `make bench` prints them; they never fail on time."""
