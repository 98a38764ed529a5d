"""Naive and periodic fine-tuning on the published labels (S0)."""
