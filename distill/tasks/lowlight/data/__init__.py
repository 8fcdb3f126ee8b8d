"""Pairs of dark and bright frames: photographs, SID, MCR."""
