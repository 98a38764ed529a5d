"""Error bars on a ladder away from the training data."""
