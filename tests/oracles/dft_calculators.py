"""A factory as a user would write it, importable in worker processes."""

from mlipjax.oracles import recipes


def gpaw_pbe():
    return recipes.gpaw(cutoff=300.0)
