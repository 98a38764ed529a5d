"""Barriers, sliding and lattice before and after (S2)."""
