"""Synthetic scenes: the scene types, the canvas that paints them, and the data set."""
