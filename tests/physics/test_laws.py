"""The laws of ``laws``, on every kind of potential; and a wrong potential for every law, which it must catch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny_mace import TINY, TINY_NONLINEAR
from tiny_nequip import LIKE_SEVENNET, SMALL, SMALLEST, SPECIES, random_params

from mlipjax.calculator import Calculator
from mlipjax.graph import GraphBatch, edge_vectors
from mlipjax.models import mace, nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Adapters, adapt
from mlipjax.oracles import LennardJones, StillingerWeber, Teacher
from mlipjax.potential import Model, sum_over_atoms
from mlipjax.system import System

EXAMPLES = [pytest.param(5, id=""), pytest.param(150, id="often", marks=pytest.mark.slow)]
HEADS = (
    PropertyHead("gap", hidden=(5,), mean=2.0, std=3.0),
    PropertyHead("volume", "extensive", hidden=(5,), layers="all", mean=1.0, std=0.5),
    PropertyHead("noise", "vector", hidden=(4,)),
)


def drawn(potential):
    return Model(potential, random_params(potential))


def with_adapters():
    potential, params = drawn(nequip(SMALLEST))
    adapted, own = adapt(potential, params, Adapters(rank=2), jax.random.key(0))
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), own["adapters"])
    return laws.of_model(Model(adapted, own | {"adapters": adapters}))


def one_layer(**changes):
    return drawn(nequip(dataclasses.replace(SMALLEST, n_layers=1, **changes), [-13.5, -1030.25, -2040.125]))


def two_heads_and_properties():
    potential = nequip(dataclasses.replace(SMALLEST, heads=("pbe", "xtb"), zbl=True))
    return laws.of_model(drawn(potential.replace(properties=HEADS)))


def calculator():
    subject = laws.CalculatorSubject(Calculator(*one_layer()))
    # the program of a large structure serves the smaller ones
    grid = 1.5 * np.argwhere(np.ones((2, 2, 3)))
    subject.ask(
        [System(grid, np.full(12, 6, np.int32), cell, (cell.any(),) * 3) for cell in (0.0 * np.eye(3), 4.5 * np.eye(3))]
    )
    return subject


def both_parities():
    irreps = "8x0e + 2x0o + 4x1o + 3x1e + 3x2o"
    return laws.of_model(drawn(nequip(dataclasses.replace(SMALL, hidden_irreps=irreps, n_layers=4))))


SUBJECTS = {
    "nequip": lambda: laws.of_model(drawn(nequip(SMALL))),
    "sevennet": lambda: laws.of_model(drawn(nequip(LIKE_SEVENNET).replace(properties=HEADS))),
    "mace": lambda: laws.of_model(drawn(mace(TINY).replace(properties=HEADS[2:]))),
    "nonlinear mace": lambda: laws.of_model(drawn(mace(TINY_NONLINEAR).replace(properties=HEADS[2:]))),
    "lora": with_adapters,
    "two heads and properties": two_heads_and_properties,
    "lennard-jones": lambda: laws.of_oracle(LennardJones(cutoff=7.0, onset=5.0), (18,)),
    "stillinger-weber": lambda: laws.of_oracle(StillingerWeber(), (14,)),
    "teacher": lambda: laws.of_oracle(Teacher(*one_layer(heads=("pbe", "xtb")), head=1), SPECIES),
    "calculator": calculator,
    "nequip of both parities": both_parities,
}
CASES = [
    pytest.param(name, law, id=f"{name}-{law.__name__}", marks=[pytest.mark.slow] if "parities" in name else [])
    for name in SUBJECTS
    for law in (laws.LAWS if name == "calculator" else laws.LAWS + laws.BATCH_LAWS)
]


@functools.cache
def subject(name):
    return SUBJECTS[name]()


def check(law, subject, examples, phases=tuple(Phase)):
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def holds(data):
        law(subject, data.draw)

    holds()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("name", "law"), CASES)
def test_laws_hold(name, law, examples):
    check(law, subject(name), examples)


@pytest.mark.parametrize("name", [name for name in SUBJECTS if "parities" not in name])
def test_no_answer_is_zero_for_a_structure_that_is_not_special(name):
    def speaks(subject, draw):
        system = draw(laws.structures(subject, periodic=True).filter(lambda s: s.n_atoms == 5 and s.cell.all()))
        answer = subject.ask([system])[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(answer):
            assert np.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)

    check(speaks, subject(name), 1)


# Wrong potentials: a pair potential with one fault each


def pair_energies(graph, positions, cells, fault):
    """(N,) eV of a smooth pair potential between unlike atoms, and what a fault adds to it."""
    vectors = edge_vectors(graph, positions, cells)
    r2 = jnp.where(graph.edge_mask, jnp.sum(vectors**2, axis=-1), 16.0)
    ends = 1.0 if fault == "ends abruptly" else (1.0 - r2 / 16.0) ** 3
    pair = jnp.where(graph.edge_mask, ends * 0.1 * graph.atomic_numbers[:, None] / r2, 0.0)
    energies = jnp.sum(pair, axis=1)
    centre = jnp.sum(pair[..., None] * vectors, axis=1)
    size = sum_over_atoms(graph, jnp.ones_like(energies))
    match fault:
        case "prefers an axis":
            energies += centre[:, 0] ** 2
        case "tells left from right":
            once, twice = (jnp.sum((pair**n)[..., None] * vectors, axis=1) for n in (2, 3))
            energies += 50.0 * jnp.sum(jnp.cross(centre, once) * twice, axis=-1)
        case "knows where it is":
            energies += 1e-3 * jnp.sum(positions**2, axis=-1)
        case "numbers its atoms":
            energies *= 1.0 + jnp.arange(len(energies))
        case "is not extensive":
            energies /= size[graph.graph_index]
        case "counts padding":
            energies *= len(energies)
        case "reads padding":
            energies += 1e-3 * jnp.sum(graph.atomic_numbers)
        case "mixes structures":
            energies *= jnp.sum(graph.graph_mask)
    return jnp.where(graph.atom_mask, energies, 0.0)


def wrong(fault):
    @jax.jit
    def answer(graph: GraphBatch):
        def total(positions, strain):
            strain = 0.5 * (strain + jnp.swapaxes(strain, -1, -2))
            positions = positions + jnp.einsum("ni,nij->nj", positions, strain[graph.graph_index])
            energies = pair_energies(graph, positions, graph.cells + graph.cells @ strain, fault)
            return jnp.sum(energies), energies

        slopes, energies = jax.grad(total, (0, 1), has_aux=True)(jnp.asarray(graph.positions), 0.0 * graph.cells)
        volume = jnp.abs(jnp.linalg.det(graph.cells))[:, None, None]
        stress = jnp.where(volume > 0.0, slopes[1] / jnp.where(volume > 0.0, volume, 1.0), 0.0)
        forces = -1.01 * slopes[0] if fault == "pushes too hard" else -slopes[0]
        stress = -stress if fault == "has pressure for tension" else stress
        return laws.Answer({"energy": sum_over_atoms(graph, energies)}, {}, {}, {"forces": forces}, stress)

    return laws.Subject(answer, SPECIES, 4.0, 4.0)


FAULTS = {
    "prefers an axis": laws.rotation_and_inversion,
    "tells left from right": laws.rotation_and_inversion,
    "knows where it is": laws.translation,
    "numbers its atoms": laws.permutation,
    "is not extensive": laws.supercell,
    "ends abruptly": laws.smoothness_at_the_cutoff,
    "pushes too hard": laws.forces_are_minus_the_slope_of_the_energy,
    "has pressure for tension": laws.stress_is_the_slope_of_the_energy_with_strain,
    "counts padding": laws.padding,
    "reads padding": laws.padding,
    "mixes structures": laws.batching,
}


@pytest.mark.parametrize("law", laws.LAWS + laws.BATCH_LAWS)
def test_a_potential_without_a_fault_obeys(law):
    check(law, wrong(None), 5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_potential_is_caught(fault):
    with pytest.raises(AssertionError):
        check(FAULTS[fault], wrong(fault), 20, phases=[Phase.generate])


def test_every_law_catches_something():
    assert set(FAULTS.values()) == {*laws.LAWS, *laws.BATCH_LAWS}
