"""Relaxation of structures, of elastic bands between them, and what their ends depend on."""
