"""Measurements: what the in-plane boxes lose, and speed as ratios in one run."""
