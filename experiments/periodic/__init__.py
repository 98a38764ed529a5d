"""Naive, periodic and single-trajectory labels, with a live oracle (S0)."""
