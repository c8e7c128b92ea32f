"""Synthetic scenes: which things stand in them, the canvas they are painted on, and the data set of them."""
