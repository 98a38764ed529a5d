"""Shared parts of all experiments: entry points, units of work, records."""
