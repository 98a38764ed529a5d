"""A program is made for the platform it is lowered for, not for the one that traces it."""

import jax
import numpy as np
import pytest
from ase.build import bulk
from tiny_nequip import SMALLEST, random_params

from mlipjax.graph import batch_graphs
from mlipjax.models import nequip
from mlipjax.potential import Potential
from mlipjax.system import System


@pytest.fixture(scope="module")
def case():
    """A potential, its parameters, and a graph with so many edges that CPUs take blocks of them, and tables."""
    potential = nequip(SMALLEST).replace(species=(14,))
    silicon = System.from_ase(bulk("Si", cubic=True) * (2, 2, 2))
    graph = batch_graphs([silicon], potential.cutoff, n_atoms=64, n_neighbors=192, dtype=np.float32)
    return potential, random_params(potential, dtype=np.float32), graph


def exported(platform, case):
    potential, *arguments = case
    function = jax.jit(lambda *given: Potential.apply(potential, *given))
    return jax.export.export(function, platforms=[platform])(*arguments).mlir_module()


def test_a_program_for_another_platform_takes_that_platforms_way(case):
    programs = {platform: exported(platform, case) for platform in ("cpu", "cuda", "tpu")}
    # blocks of edges are a loop, which looks splines up
    assert [program.count("stablehlo.while") > 0 for program in programs.values()] == [True, False, False]
    # a network on all edges: 64 atoms with 192 slots
    products = {
        platform: [line for line in program.splitlines() if "dot_general" in line and "tensor<12288x8xf32>" in line]
        for platform, program in programs.items()
    }
    assert [bool(found) for found in products.values()] == [False, True, True]
