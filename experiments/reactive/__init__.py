"""Reactive events with several universal models (S1)."""
