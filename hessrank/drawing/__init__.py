"""Figures, and the names and colors in them."""
