"""Optimisers, learning rates and batch sizes at equal numbers of gradients."""
