"""Structures of all elements, a teacher's labels of them, and what a judge makes of predictions."""

import collections
import functools

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list
from tiny_nequip import random_params

from experiments.pretrain import compositions, distil, judge, parts, structures_elements, structures_pairs
from experiments.pretrain.prototypes import prototypes
from mlipjax.elements import covalent_radii
from mlipjax.graph import neighbor_table
from mlipjax.models import NequIPConfig, nequip
from mlipjax.oracles import LennardJones
from mlipjax.potential import Model
from mlipjax.probes.evaluator import Evaluation, NativeEvaluator
from mlipjax.system import System

TYPES = {prototype.name: prototype for prototype in prototypes()}


def neighbours(atoms, prototype, one, other):
    """Mean number of nearest neighbours of one letter's atoms among another's."""
    i, j, d = neighbor_list("ijd", atoms, 6.0)
    mine = (prototype.roles[i] == one) & (prototype.roles[j] == other)
    return np.sum(mine & (d < 1.1 * d[mine].min())) / np.sum(prototype.roles == one)


@pytest.mark.parametrize(
    ("name", "elements", "counts", "pair", "coordination"),
    [
        ("rocksalt", "Na Cl", {"A": 1, "X": 1}, "AX", 6),
        ("wurtzite", "Zn O", {"A": 2, "X": 2}, "AX", 4),
        ("fluorite", "Ca F", {"A": 1, "X": 2}, "AX", 8),
        ("rutile", "Ti O", {"A": 2, "X": 4}, "AX", 6),
        ("corundum", "Al O", {"A": 4, "X": 6}, "AX", 6),
        ("perovskite", "Sr Ti O", {"A": 1, "B": 1, "X": 3}, "BX", 6),
        ("spinel", "Mg Al O", {"A": 2, "B": 4, "X": 8}, "AX", 4),
        ("spinel", "Mg Al O", {"A": 2, "B": 4, "X": 8}, "BX", 6),
        ("zircon", "Zr Si O", {"A": 2, "T": 2, "X": 8}, "TX", 4),
        ("scheelite", "Ca W O", {"A": 2, "T": 2, "X": 8}, "TX", 4),
        ("calcite", "Ca C O", {"A": 2, "M": 2, "X": 6}, "MX", 3),
        ("elpasolite", "Cs Ag Bi Cl", {"A": 2, "B": 1, "C": 1, "X": 6}, "BX", 6),
        ("Heusler", "Cu Mn Al", {"A": 2, "B": 1, "C": 1}, "AB", 4),
        ("hcp", "Mg", {"A": 2}, "AA", 12),
        ("ThCr2Si2", "Ba Fe As", {"A": 1, "B": 2, "X": 2}, "BX", 4),
    ],
)
def test_structure_types_have_their_formula_and_coordination(name, elements, counts, pair, coordination):
    prototype = TYPES[name]
    assert prototype.counts == counts
    numbers = Atoms(elements.split()).numbers.tolist()
    atoms = prototype.occupied(dict(zip(sorted(counts), numbers, strict=True)))
    assert neighbours(atoms, prototype, *pair) == coordination


def test_no_structure_type_has_atoms_that_overlap_or_are_far_apart():
    for prototype in prototypes():
        elements = dict(zip("ABCMTXY", (56, 22, 31, 6, 14, 8, 9), strict=True))
        atoms = prototype.occupied({letter: elements[letter] for letter in prototype.counts})
        radii = covalent_radii(atoms.numbers)
        i, j, d = neighbor_list("ijd", atoms, 8.0)
        nearest = np.array([np.min((d / (radii[i] + radii[j]))[i == k]) for k in range(len(atoms))])
        assert nearest.min() > 0.75, prototype.name
        assert nearest.max() < 1.75, prototype.name


def test_balanced_compounds_are_known_from_others():
    counts = {"A": 1, "B": 1, "X": 3}
    assert compositions.imbalance({"A": 38, "B": 22, "X": 8}, counts) == 0
    assert compositions.imbalance({"A": 11, "B": 12, "X": 8}, counts) == pytest.approx(3 / 5)
    assert compositions.imbalance({"A": 18, "B": 22, "X": 8}, counts) == np.inf


ARGON = LennardJones(epsilon=0.0104, sigma=3.4, cutoff=8.0, onset=7.0)


def argon_says(atoms):
    labels = ARGON.label(System.from_ase(atoms))
    return Evaluation(float(labels.energy), np.asarray(labels.forces), np.asarray(labels.stress))


def test_descent_takes_stress_and_forces_down():
    atoms = TYPES["fcc"].occupied({"A": 18}).repeat(2)
    atoms.set_cell(3.55 / 2**0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * 2, scale_atoms=True)
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=(8, 3))
    steps = structures_elements.descend(atoms, 25)
    seen = [argon_says(next(steps))]
    for _ in range(24):
        seen.append(argon_says(steps.send(seen[-1])))
    with pytest.raises(StopIteration):
        steps.send(seen[-1])
    assert np.abs(seen[-1].stress).max() < 0.05 * np.abs(seen[0].stress).max()
    assert np.abs(seen[-1].forces).max() < 0.2 * np.abs(seen[0].forces).max()


def test_wall_goes_on_from_the_teacher_and_is_the_slope_of_its_energy():
    numbers, r, energy, force = np.array([29, 8]), 1.5, -1.25, 3.0
    rng = np.random.default_rng(3)
    wall = functools.partial(structures_pairs._wall, numbers=numbers, r=r, energy=energy, force=force)
    frames = [atoms for _ in range(200) for atoms in wall(rng)]
    order = np.argsort([atoms.positions[1, 0] for atoms in frames])
    s = np.array([frames[k].positions[1, 0] for k in order])
    energies, forces = (
        np.array([value(frames[k].calc.results) for k in order])
        for value in (lambda x: x["energy"], lambda x: x["forces"][1, 0])
    )
    assert np.all(np.diff(forces) < 0)
    assert forces.max() <= structures_pairs.MOST_WALL
    middle = 0.5 * (forces[1:] + forces[:-1])
    np.testing.assert_allclose(-np.diff(energies), middle * np.diff(s), atol=0.02)
    np.testing.assert_allclose(energies[-1], energy + force * (r - s[-1]), atol=0.02)


@pytest.mark.parametrize(
    ("inward", "innermost"),
    [
        ([2.0, 9.0, 20.0, 45.0, 90.0], 7),
        ([-3.0, -1.0, 5.0, 2.0, -30.0], 5),
        ([1.0, 4.0, -2.0, 3.0, 9.0], 4),
        ([-1.0, -2.0, -4.0, -9.0, -20.0], 3),
    ],
)
def test_a_teacher_is_believed_while_repulsion_grows(inward, innermost):
    outside = [-0.1, -0.3, -0.5]
    assert structures_pairs.sane(np.array([*outside, *inward])) == innermost


def finished(seed, number):
    """A task that a featureless teacher has seen to its end."""
    task = distil.Task(seed, number)
    while task.wanted is not None:
        n = len(task.wanted)
        stress = np.zeros((3, 3)) if task.wanted.pbc.all() else None
        task.send(Evaluation(-1.0 * n, np.full((n, 3), 0.1), stress))
    return task


def test_tasks_are_functions_of_seed_and_number_and_keep_their_labels():
    families, elements = collections.Counter(), set()
    for number in range(12):
        task, again = finished(0, number), finished(0, number)
        families[task.family] += 1
        assert len(task.frames) == len(again.frames)
        for frame, same in zip(task.frames, again.frames, strict=True):
            np.testing.assert_array_equal(frame.positions, same.positions)
            np.testing.assert_array_equal(frame.numbers, same.numbers)
            assert frame.info == {"family": task.family, "group": task.group, "config_type": task.family}
            assert len(frame) <= structures_elements.MOST_ATOMS
            elements |= set(frame.numbers.tolist())
            if task.family != "dimers":
                assert frame.calc.results["energy"] == -len(frame)
        assert not task.dropped
    assert len(families) > 3
    assert len(elements) > 20
    assert elements <= set(compositions.ELEMENTS)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Evaluation(0.0, np.full((1, 3), 31.0), None), "force above 30"),
        (Evaluation(np.nan, np.zeros((1, 3)), None), "not finite"),
        ("too many neighbours", "too many neighbours"),
    ],
)
def test_what_cannot_be_a_label_ends_its_task_and_is_counted(found, reason):
    task = distil.Task(0, 0)
    task.send(found)
    assert task.wanted is None
    assert not task.frames
    assert [reason in key for key in task.dropped] == [True]


def test_batches_hold_every_structure_that_fits_once():
    crystals = [TYPES["fcc"].occupied({"A": 29}).repeat((k, 1, 1)) for k in (1, 2, 3)] * 30
    dense = TYPES["fcc"].occupied({"A": 29})
    dense.set_cell(dense.cell.array * 0.55, scale_atoms=True)
    tables = [neighbor_table(System.from_ase(atoms), 6.0) for atoms in [*crystals, dense]]
    seen = []
    for (rows, width), indices in distil.batches(tables):
        assert sum(tables[i].n_atoms for i in indices) <= rows
        assert max(tables[i].max_count for i in indices) <= width
        assert len(indices) <= distil.GRAPHS
        seen += indices
    assert sorted(seen) == list(range(90))


def test_batches_of_fixed_shapes_say_what_one_by_one_says():
    config = NequIPConfig((8, 12, 29), 6.0, "4x0e + 2x1o", 1, 1, radial_hidden=(4,), avg_n_neighbors=40.0)
    potential = nequip(config, np.array([-1.0, -2.0, -3.0]))
    model = Model(potential, random_params(potential, dtype=np.float32))
    structures = [TYPES["rocksalt"].occupied({"A": 12, "X": 8}).repeat((1, 1, k)) for k in (1, 3)]
    structures += [Atoms("CuO", positions=[[0, 0, 0], [0, 0, 1.7]]), TYPES["fcc"].occupied({"A": 29})]
    for atoms in structures:
        atoms.rattle(0.05, seed=1)
    expected = NativeEvaluator(model, "float32")([System.from_ase(atoms) for atoms in structures])
    for found, one in zip(distil.Asked(model)(structures), expected, strict=True):
        np.testing.assert_allclose(found.energy, one.energy, rtol=1e-5)
        np.testing.assert_allclose(found.forces, one.forces, atol=1e-4)
        assert (found.stress is None) == (one.stress is None)
        if one.stress is not None:
            np.testing.assert_allclose(found.stress, one.stress, atol=1e-5)


def numbered_part(number):
    atoms = Atoms("H", positions=[[0, 0, float(number)]])
    atoms.calc = SinglePointCalculator(atoms, energy=float(number), forces=np.zeros((1, 3)))
    atoms.info = {"family": "one", "group": f"one-{number}", "config_type": "one"}
    return parts.Part([atoms], collections.Counter(bad=number), collections.Counter(one=1))


def test_parts_are_made_once_and_joined_in_order(tmp_path):
    folder = parts.claim(tmp_path, {"seed": 0})
    parts.make_parts(folder, 2, 1, numbered_part)
    kept = (folder / "part_00000.npz").stat().st_mtime_ns
    parts.make_parts(folder, 3, 1, numbered_part)
    assert (folder / "part_00000.npz").stat().st_mtime_ns == kept
    joined = parts.join(folder)
    assert [atoms.calc.results["energy"] for atoms in joined.frames] == [0.0, 1.0, 2.0]
    assert joined.dropped == {"bad": 3}
    with pytest.raises(SystemExit, match="other settings"):
        parts.claim(tmp_path, {"seed": 1})


def labelled(n, rng):
    frames = []
    for _ in range(n):
        numbers = rng.choice([1, 8, 29], rng.integers(2, 9))
        atoms = Atoms(numbers, rng.uniform(0, 5, (len(numbers), 3)), cell=5 * np.eye(3), pbc=True)
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)), stress=rng.normal(size=6)
        )
        frames.append(atoms)
    return frames


def test_errors_are_apart_from_what_a_composition_explains():
    frames = labelled(40, np.random.default_rng(0))
    found = judge.labels(frames)
    shift = {1: 0.5, 8: -0.25, 29: 1.0}
    found["energy"] = found["energy"] + [sum(shift[z] for z in atoms.numbers.tolist()) for atoms in frames]
    found["forces"] = found["forces"] + 0.02
    found["stress"] = found["stress"] - 0.003
    result = judge.errors(frames, found)
    expected = np.mean([abs(np.mean([shift[z] for z in atoms.numbers.tolist()])) for atoms in frames])
    assert result["energy"]["mean"] == pytest.approx(1e3 * expected)
    assert result["energy"]["low"] < 1e3 * expected < result["energy"]["high"]
    assert result["energy but for composition"]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert result["force"]["mean"] == pytest.approx(20.0)
    assert result["stress"]["mean"] == pytest.approx(3.0)


def test_every_crystal_to_run_is_a_structure_type_with_all_its_elements():
    names = [name for name, *_ in judge.CRYSTALS]
    assert len(names) + len(judge.LIQUIDS) + len(judge.MELTS) == 30
    for name, elements, _ in judge.CRYSTALS:
        assert len(TYPES[name].counts) == len(elements.split()), name
