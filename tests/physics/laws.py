"""Laws that every potential obeys, as functions that draw their own examples and assert.

A *subject* answers for structures; a law draws structures (and turns, shifts, orders, ...) and compares answers. What a
law needs to know of a quantity is how it transforms, so answers are sorted by that (``Answer``): a quantity that is put
into the right field is under all laws at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlipjax.calculator import Calculator
from mlipjax.graph import GraphBatch, batch_graphs
from mlipjax.oracles import JittableOracle
from mlipjax.potential import Model, apply, property_values
from mlipjax.system import System

CLOSE = {"rtol": 1e-8, "atol": 1e-9}
STEP = 1e-4
"""Å, or strain: the error of central differences is about its square."""
MOST_ATOMS = 5
"""Of a drawn structure: three of them, or two copies of one, fit ``SIZES``."""
SIZES = {"n_atoms": 16, "n_neighbors": 64, "n_graphs": 3}
LARGER = {"n_atoms": 21, "n_neighbors": 72, "n_graphs": 5}


class Answer(NamedTuple):
    """Predictions of a model for one structure or batch, by how it transforms (all mappings: name -> array)."""

    sums: Mapping[str, Any]  # (G,) of a structure, extensive
    means: Mapping[str, Any]  # (G,) of a structure, intensive
    atoms: Mapping[str, Any]  # (N, ...) of an atom, invariant
    vectors: Mapping[str, Any]  # (N, 3) of an atom, polar
    stress: Any  # (G, 3, 3)

    @property
    def forces(self) -> np.ndarray:
        return self.vectors["forces"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A compiled function of batches under test, whatever made it.

    Attributes:
        answer: batch -> ``Answer`` with padding.
        species: atomic numbers that it knows.
        cutoff: Å; nothing acts beyond.
        reach: Å, of the edges in its batches; more than ``cutoff`` where longer edges must be ignored.
        heads: number of energy heads.
        mirrors: whether a structure and its mirror image are the same to it.
        kinked: whether forces go to zero at the cutoff with a kink.
    """

    answer: Callable[[GraphBatch], Answer]
    species: tuple[int, ...]
    cutoff: float
    reach: float
    heads: int = 1
    mirrors: bool = True
    kinked: bool = False

    def batch(self, systems: Sequence[System], heads: Sequence[int] | None = None, **sizes: int) -> GraphBatch:
        """Structures as one padded batch; ``heads`` says which head answers for each of them."""
        return batch_graphs(systems, self.reach, heads=heads, dtype=np.float64, **(SIZES | sizes))

    def ask(self, systems: Sequence[System], heads: Sequence[int] | None = None, **sizes: int) -> list[Answer]:
        """Answers for each of the structures, without padding; what stands in padding atoms must be zero."""
        found = jax.device_get(self.answer(self.batch(systems, heads, **sizes)))
        ends = np.cumsum([0, *(system.n_atoms for system in systems)])
        for padded in (*found.atoms.values(), *found.vectors.values()):
            np.testing.assert_array_equal(padded[ends[-1] :], 0.0)
        for padded in (*found.sums.values(), *found.means.values(), found.stress):
            np.testing.assert_array_equal(padded[len(systems) :], 0.0)
        return [
            Answer(
                *({name: value[i] for name, value in part.items()} for part in (found.sums, found.means)),
                *(
                    {n: value[ends[i] : ends[i + 1]] for n, value in part.items()}
                    for part in (found.atoms, found.vectors)
                ),
                found.stress[i],
            )
            for i in range(len(systems))
        ]


@dataclasses.dataclass(frozen=True)
class CalculatorSubject:
    """ASE's view of a model: one structure at a time, in and out of ``Atoms``."""

    calculator: Calculator
    heads, mirrors, kinked = 1, True, False

    @property
    def species(self) -> tuple[int, ...]:
        return self.calculator.potential.species

    @property
    def cutoff(self) -> float:
        return self.calculator.potential.cutoff

    def ask(self, systems: Sequence[System], heads: Sequence[int] | None = None) -> list[Answer]:
        del heads
        return [self._answer(system.to_ase()) for system in systems]

    def _answer(self, atoms: Any) -> Answer:
        atoms.calc = self.calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        stress = atoms.get_stress(voigt=False) if atoms.cell.rank == 3 else np.zeros((3, 3))
        per_atom = {"energies": atoms.get_potential_energies(), "features": self.calculator.get_descriptors(atoms)}
        return Answer({"energy": energy}, {}, per_atom, {"forces": forces}, stress)


def of_model(model: Model) -> Subject:
    """A potential with all of its heads."""
    potential, params = model
    kinds = {head.name: head.kind for head in potential.properties}

    def answer(graph: GraphBatch) -> Answer:
        found = apply(potential, params, graph)
        values = property_values(potential, params, graph) if kinds else {}
        by_kind = {
            kind: {n: values[n] for n in kinds if kinds[n] == kind} for kind in ("extensive", "intensive", "vector")
        }
        return Answer(
            {"energy": found.energy} | by_kind["extensive"],
            by_kind["intensive"],
            {"node_energy": found.node_energy, "features": found.features},
            {"forces": found.forces} | by_kind["vector"],
            found.stress,
        )

    config, cutoff = potential.config, potential.cutoff
    kinked = getattr(config, "envelope_onset", 0.0) > 0.0
    return Subject(
        answer, potential.species, cutoff, cutoff, len(potential.heads), getattr(config, "parity", True), kinked
    )


def of_oracle(oracle: JittableOracle, species: tuple[int, ...]) -> Subject:
    """An oracle that labels graphs, here some with edges longer than its cutoff."""

    @jax.jit
    def answer(graph: GraphBatch) -> Answer:
        labels = oracle.label_graph(graph)
        return Answer({"energy": labels.energy}, {}, {}, {"forces": labels.forces}, labels.stress)

    return Subject(answer, species, oracle.cutoff, 1.2 * oracle.cutoff)


@st.composite
def structures(draw: Any, subject: Subject, *, periodic: bool | None = None) -> System:
    """Atoms on a jittered grid of half a cutoff, periodic in any directions, in a skewed cell or none.

    Args:
        draw: of hypothesis.
        subject: its elements and its cutoff.
        periodic: whether at least one direction must be periodic; ``None`` leaves it open.
    """
    pbc = draw(st.tuples(*[st.booleans()] * 3).filter(lambda axes: any(axes) or not periodic))
    n_atoms = draw(st.integers(1, MOST_ATOMS))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    spacing = 0.5 * subject.cutoff
    sites = np.argwhere(np.ones((2, 2, 2)))[rng.permutation(8)[:n_atoms]]
    cell = spacing * (2.0 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)))
    if draw(st.booleans()):  # lattice vectors of directions without periods mean nothing and may be missing
        cell[~np.array(pbc)] = 0.0
    jitter = rng.uniform(-0.15, 0.15, (n_atoms, 3))
    return System(
        positions=spacing * (sites + jitter),
        atomic_numbers=rng.choice(np.array(subject.species, np.int32), n_atoms),
        cell=cell,
        pbc=pbc,
    )


def heads_of(subject: Subject) -> st.SearchStrategy[int]:
    return st.integers(0, subject.heads - 1)


def vectors(size: float) -> st.SearchStrategy[np.ndarray]:
    component = st.floats(-size, size, allow_nan=False)
    return st.tuples(component, component, component).map(np.array)


quaternions = st.tuples(*[st.floats(-1.0, 1.0, allow_nan=False)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


def rotation_and_inversion(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Scalars stay, vectors and tensors turn with the structure; also in a mirror."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    matrix = Rotation.from_quat(draw(quaternions)).as_matrix()
    if subject.mirrors and draw(st.booleans()):
        matrix = -matrix
    turned = system.replace(positions=system.positions @ matrix.T, cell=system.cell @ matrix.T)
    before, after = (subject.ask([s], [head])[0] for s in (system, turned))
    same(after, before, vectors=lambda v: v @ matrix.T, tensor=lambda t: matrix @ t @ matrix.T)


def translation(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Nothing depends on where the structure is, nor on which image of an atom is given."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    images = rng.integers(-2, 3, (system.n_atoms, 3)) * np.array(system.pbc)
    moved = system.replace(positions=system.positions + draw(vectors(10.0)) + images @ system.cell)
    before, after = (subject.ask([s], [head])[0] for s in (system, moved))
    same(after, before)


def permutation(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Atoms have no number: what is said of each goes with it."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    order = draw(st.permutations(range(system.n_atoms)))
    permuted = system.replace(positions=system.positions[order], atomic_numbers=system.atomic_numbers[order])
    before, after = (subject.ask([s], [head])[0] for s in (system, permuted))
    same(after, before, atoms=lambda values: values[order])


def supercell(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Two cells are twice one cell."""
    system, head = draw(structures(subject, periodic=True)), draw(heads_of(subject))
    axis = draw(st.sampled_from(np.flatnonzero(system.pbc).tolist()))
    doubled = system.replace(
        positions=np.concatenate([system.positions, system.positions + system.cell[axis]]),
        atomic_numbers=np.tile(system.atomic_numbers, 2),
        cell=system.cell * np.where(np.arange(3) == axis, 2.0, 1.0)[:, None],
    )
    one, two = (subject.ask([s], [head])[0] for s in (system, doubled))
    same(two, one, sums=lambda value: 2.0 * value, atoms=lambda values: np.concatenate([values, values]))


def padding(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Neither how much padding there is nor what stands in it changes an answer."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    (small,), (large,) = (subject.ask([system], [head], **sizes) for sizes in (SIZES, LARGER))
    same(large, small)
    graph = subject.batch([system], [head])
    rng = np.random.default_rng(0)
    no_atoms, no_edges = ~graph.atom_mask, ~graph.edge_mask
    other = graph.replace(
        positions=np.where(no_atoms[:, None], rng.normal(size=graph.positions.shape), graph.positions),
        atomic_numbers=np.where(no_atoms, subject.species[-1], graph.atomic_numbers),
        shifts=np.where(no_edges[..., None], 2, graph.shifts),
        neighbors=np.where(no_edges, graph.positions.shape[0] - 1, graph.neighbors),
    )
    jax.tree.map(np.testing.assert_array_equal, subject.answer(other), subject.answer(graph))


def batching(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """Structures of a batch do not see each other, whatever head answers for each."""
    systems = [draw(structures(subject)) for _ in range(SIZES["n_graphs"])]
    heads = [draw(heads_of(subject)) for _ in systems]
    for found, system, head in zip(subject.ask(systems, heads), systems, heads, strict=True):
        same(found, subject.ask([system], [head])[0])


def smoothness_at_the_cutoff(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """An atom that leaves takes its energy, and its force, to zero before it is gone."""
    numbers = np.array([draw(st.sampled_from(subject.species)) for _ in range(3)], np.int32)
    head = draw(heads_of(subject))
    step = 1e-8 if subject.kinked else 1e-4
    # the third atom is near the first and beyond the reach of the second, which leaves it
    third = np.array([-0.4, 0.3, 0.1]) * subject.cutoff
    inside, outside = (
        subject.ask(
            [System(np.array([np.zeros(3), [r, 0.0, 0.0], third]), numbers, np.zeros((3, 3)), (False,) * 3)], [head]
        )[0]
        for r in (subject.cutoff - step, subject.cutoff + step)
    )
    same(inside, outside, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(outside.forces[1], 0.0)


def forces_are_minus_the_slope_of_the_energy(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """``F . d = -dE`` along any direction d, and all forces together are zero."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    direction = rng.normal(size=(system.n_atoms, 3))
    forces = subject.ask([system], [head])[0].forces

    def moved(step: float) -> System:
        return system.replace(positions=system.positions + step * direction)

    agree(np.sum(forces * direction), -slope_of_energy(subject, moved, head))
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-9)


def stress_is_the_slope_of_the_energy_with_strain(subject: Subject, draw: Callable[[Any], Any]) -> None:
    """``V stress : e = dE`` for any symmetric strain e; without a volume there is no stress."""
    system, head = draw(structures(subject)), draw(heads_of(subject))
    stress, volume = subject.ask([system], [head])[0].stress, abs(np.linalg.det(system.cell))
    if volume == 0.0:
        np.testing.assert_array_equal(stress, 0.0)
        return
    strain = np.random.default_rng(draw(st.integers(0, 2**16))).normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)

    def strained(step: float) -> System:
        grid = np.eye(3) + step * strain
        return system.replace(positions=system.positions @ grid, cell=system.cell @ grid)

    agree(volume * np.sum(stress * strain), slope_of_energy(subject, strained, head))
    np.testing.assert_allclose(stress, stress.T, atol=1e-12)


def slope_of_energy(subject: Subject, at: Callable[[float], System], head: int) -> float:
    """From four points: close pairs have third derivatives that two points would take for a slope."""
    near, far = (
        subject.ask([at(step)], [head])[0].sums["energy"] - subject.ask([at(-step)], [head])[0].sums["energy"]
        for step in (STEP, 2.0 * STEP)
    )
    return (8.0 * near - far) / (12.0 * STEP)


def agree(found: float, expected: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def same(
    found: Answer,
    expected: Answer,
    *,
    sums: Callable[[Any], Any] = lambda value: value,
    atoms: Callable[[Any], Any] = lambda values: values,
    vectors: Callable[[Any], Any] = lambda values: values,
    tensor: Callable[[Any], Any] = lambda value: value,
    **close: float,
) -> None:
    """Assert that an answer is another one, transformed.

    Args:
        found, expected: of one structure each.
        sums, atoms, vectors, tensor: what the law does to sums, to rows of atoms, to vectors, to the stress.
        close: tolerances other than ``CLOSE``.
    """
    close = CLOSE | close
    expected = Answer(
        {name: sums(value) for name, value in expected.sums.items()},
        expected.means,
        {name: atoms(values) for name, values in expected.atoms.items()},
        {name: vectors(atoms(values)) for name, values in expected.vectors.items()},
        tensor(expected.stress),
    )
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, value), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(value).all()
        np.testing.assert_allclose(value, other, err_msg=jax.tree_util.keystr(path), **close)


LAWS = (
    rotation_and_inversion,
    translation,
    permutation,
    supercell,
    smoothness_at_the_cutoff,
    forces_are_minus_the_slope_of_the_energy,
    stress_is_the_slope_of_the_energy_with_strain,
)
BATCH_LAWS = (padding, batching)
"""Laws about batches, which ASE's view does not have."""
