"""Flax modules of equivariant potentials, in the dense neighbour layout."""
