"""Hessian products in files: arrays, and differences of forces of displaced structures."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import mlipjax
from mlipjax.data import LabelKeys, read_dataset
from mlipjax.data.label_units import parse_units
from mlipjax.data.products import PROBE, PRODUCT, products_in, products_of_displacements, random_probes

N = 8


def spring_constants(seed=0):
    """A symmetric matrix (24, 24) in eV/Å^2 that a rigid translation does not feel."""
    random = np.random.default_rng(seed).normal(size=(3 * N, 3 * N))
    rigid = np.kron(np.ones((N, 1)), np.eye(3)) / np.sqrt(N)
    inner = np.eye(3 * N) - rigid @ rigid.T
    return inner @ (random + random.T) @ inner


def crystal(displacement=0.0):
    """Silicon displaced, with forces of springs to the perfect crystal."""
    atoms = bulk("Si", cubic=True)
    atoms.positions += displacement
    forces = -(spring_constants() @ np.broadcast_to(displacement, (N, 3)).ravel()).reshape(N, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    return atoms


def random_steps(n, size=0.01):
    return np.random.default_rng(3).normal(scale=size, size=(n, N, 3))


def assert_products(dataset, n):
    assert len(dataset) == n
    for labels in dataset.labels:
        probe, product = labels.properties[PROBE], labels.properties[PRODUCT]
        assert np.sum(probe**2) == pytest.approx(3 * N)
        np.testing.assert_allclose(product.ravel(), spring_constants() @ probe.ravel(), atol=1e-7)
        assert labels.forces_weight == labels.energy_weight == 0.0


def one_atom(axis):
    step = np.zeros((N, 3))
    step[0, axis] = 0.02
    return step


@pytest.mark.parametrize(
    ("steps", "n"),
    [
        ([s * one_atom(axis) for axis in range(3) for s in (1.0, -1.0)], 5),
        ([np.zeros((N, 3)), *map(one_atom, range(3))], 3),
        (list(random_steps(4)), 3),
        ([r + s * d for r in random_steps(2, 0.3) for d in random_steps(1) for s in (1.0, -1.0)], 2),
    ],
    ids=["plus and minus", "one at rest", "random", "pairs about two structures"],
)
def test_displaced_structures_give_products(steps, n):
    found = products_of_displacements(mlipjax.read([crystal(step) for step in steps]))
    assert_products(found, n)


def test_products_stand_at_the_mean_and_see_through_periodic_images():
    step = one_atom(1)
    frames = [crystal(-step), crystal(step)]
    frames[1].positions[0, 1] += frames[1].cell[1, 1]
    found = products_of_displacements(mlipjax.read(frames))
    assert_products(found, 1)
    np.testing.assert_allclose(
        found.systems[0].positions[0] - [0.0, frames[1].cell[1, 1], 0.0], bulk("Si", cubic=True).positions[0], atol=1e-9
    )


def test_another_cell_is_no_displacement():
    frames = [crystal(), crystal(one_atom(0)), crystal()]
    frames[2].cell *= 1.001
    with pytest.raises(ValueError, match=r"structure 2: no other structure of its atoms and cell is within 0.1 Å"):
        products_of_displacements(mlipjax.read(frames))


def test_frames_that_are_far_equal_or_without_forces_are_refused():
    with pytest.raises(ValueError, match=r"structure 0: no other structure of its atoms and cell"):
        products_of_displacements(mlipjax.read([crystal(), crystal(20.0 * one_atom(0))]))
    with pytest.raises(ValueError, match=r"structure 1: the same as structure 0; leave one of them out"):
        products_of_displacements(mlipjax.read([crystal(), crystal()]))
    with pytest.raises(ValueError, match=r"structure 0: no forces, and no 'hvp_probe' and 'hvp' either"):
        products_of_displacements(mlipjax.read([bulk("Si", cubic=True)]))


def with_arrays(probe, product, n=1):
    frames = []
    for _ in range(n):
        atoms = bulk("Si", cubic=True)
        for name, values in ((PROBE, probe), (PRODUCT, product)):
            if values is not None:
                atoms.arrays[name] = np.asarray(values)
        frames.append(atoms)
    return frames


def test_arrays_of_a_file_are_read_and_scaled(tmp_path):
    probe = random_steps(1, size=100.0)[0]  # files of ASE have eight digits behind the point
    product = (spring_constants() @ probe.ravel()).reshape(N, 3)
    write(tmp_path / "p.extxyz", [*with_arrays(probe, product, 2), crystal()])
    dataset = mlipjax.read(tmp_path / "p.extxyz")
    assert dataset.count_labels() == {"energy": 1, "forces": 1, "stress": 0}
    assert_products(products_in(dataset), 2)


@pytest.mark.parametrize(
    ("probe", "product", "message"),
    [
        (one_atom(0), None, r"structure 0: 'hvp_probe' without 'hvp'; a product needs both"),
        (None, one_atom(0), r"structure 0: 'hvp' without 'hvp_probe'"),
        (np.zeros((N, 3)), one_atom(0), r"structure 0: 'hvp_probe' is zero"),
        (one_atom(0), np.full((N, 3), np.nan), r"structure 0: 'hvp' is not finite"),
        (np.zeros(N), np.zeros(N), r"structure 0: .*found shape \(8,\), expected \(8, 3\)"),
    ],
)
def test_arrays_that_are_no_products_are_refused(probe, product, message):
    with pytest.raises(ValueError, match=message):
        mlipjax.read(with_arrays(probe, product))


def test_products_are_not_converted_in_silence(tmp_path):
    write(tmp_path / "p.extxyz", with_arrays(one_atom(0), one_atom(1)))
    with pytest.raises(ValueError, match=r"structure 0: 'hvp' is read in eV/Å\^2 alone"):
        read_dataset(tmp_path / "p.extxyz", LabelKeys(units=parse_units("atomic")), required=())


def test_probes_depend_on_seed_and_place_alone():
    systems = mlipjax.read([crystal()] * 3).systems
    first, again, other = random_probes(systems, 0), random_probes(systems[:2], 0), random_probes(systems, 1)
    np.testing.assert_array_equal(first[:2], again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
