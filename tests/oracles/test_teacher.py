"""A frozen potential as oracle: totals on the host, interaction energies inside compiled programs."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.graph import batch_graphs
from mlipjax.models import NequIPConfig, nequip, save
from mlipjax.oracles import JittableOracle, Labeller, LabelStore, Teacher, energy_offsets, label_with, make_oracle
from mlipjax.system import System

CUTOFF = 3.2
NUMBERS = (1, 8)


@pytest.fixture(scope="module")
def teacher():
    config = NequIPConfig(
        species=NUMBERS,
        cutoff=CUTOFF,
        n_layers=1,
        hidden_irreps="4x0e + 4x1o",
        lmax=1,
        radial_basis_size=4,
        radial_hidden=(8,),
    )
    potential = nequip(config, np.array([[-13.0, -430.0]]))
    return Teacher(potential, jax.jit(potential.init, static_argnums=1)(jax.random.key(0), jnp.float64))


def water(seed=0, n=3, periodic=True):
    rng = np.random.default_rng(seed)
    grid = np.array(np.meshgrid(*[np.arange(3)] * 3)).reshape(3, -1).T[: 3 * n]
    return System(
        1.7 * grid + rng.uniform(-0.2, 0.2, (3 * n, 3)),
        np.array([8, 1, 1] * n),
        5.1 * np.eye(3) if periodic else np.zeros((3, 3)),
        (periodic,) * 3,
    )


def test_labels_of_a_batch_are_interaction_energies(teacher):
    systems = [water(0), water(1, n=2, periodic=False)]
    singles = [teacher.label(system) for system in systems]
    graph = batch_graphs(systems, CUTOFF, n_atoms=20, n_graphs=3, dtype=np.float64)
    labels = jax.jit(teacher.label_graph)(graph)
    totals = [
        labels.energy[i] + teacher.potential.reference_energy(system.atomic_numbers) for i, system in enumerate(systems)
    ]
    np.testing.assert_allclose(totals, [single.energy for single in singles], rtol=1e-12)
    assert labels.energy_weight.tolist() == [1, 1, 0]
    assert [single.stress_weight for single in singles] == [1, 0]


def test_labels_relative_to_the_students_atoms(teacher):
    student = teacher.potential.replace(e0s=np.array([[-10.0, -400.0]]))
    offsets = energy_offsets(teacher, student)
    assert (offsets[1], offsets[8], np.count_nonzero(offsets)) == (-3.0, -30.0, 2)
    system = water()
    graph = batch_graphs([system], CUTOFF, n_atoms=12, dtype=np.float64)
    target = jax.jit(teacher.label_graph)(graph, offsets).energy[0]
    total = float(target) + student.reference_energy(system.atomic_numbers)
    np.testing.assert_allclose(total, teacher.label(system).energy, rtol=1e-12)


def test_labels_inside_a_compiled_loop_are_differentiable(teacher):
    graph = batch_graphs([water()], CUTOFF, dtype=np.float64)

    def run(params, step):
        def descend(positions, _):
            labels = label_with(teacher.potential, params, graph.replace(positions=positions))
            return positions + step * labels.forces, labels.energy[0]

        return jax.lax.scan(descend, jnp.asarray(graph.positions), None, length=3)[1]

    slope = jax.jit(jax.grad(lambda step: run(teacher.params, step)[-1]))(1e-3)
    energies = [jax.jit(run)(teacher.params, 1e-3 + delta)[-1] for delta in (1e-6, -1e-6)]
    np.testing.assert_allclose(slope, (energies[0] - energies[1]) / 2e-6, rtol=1e-6)
    assert slope < 0


def test_float32_teacher_follows_its_input(teacher):
    single = Teacher(teacher.potential, teacher.params, dtype="float32").label(water())
    np.testing.assert_allclose(single.forces, teacher.label(water()).forces, atol=1e-4)
    graph = batch_graphs([water()], CUTOFF, dtype=np.float32)
    assert jax.jit(teacher.label_graph)(graph).forces.dtype == np.float32


def test_identity_follows_parameters_energies_and_precision(teacher):
    changed = jax.tree.map(lambda leaf: leaf * (1 + 1e-12), teacher.params)
    others = [
        Teacher(teacher.potential, changed),
        Teacher(teacher.potential.replace(e0s=teacher.potential.e0s + 1e-9), teacher.params),
        Teacher(teacher.potential, teacher.params, dtype="float32"),
    ]
    assert len({teacher.identity, *(other.identity for other in others)}) == 4
    assert Teacher(teacher.potential, teacher.params).identity == teacher.identity


def test_teacher_by_name_labels_into_a_store(teacher, tmp_path):
    save(tmp_path / "model", teacher.potential, teacher.params)
    oracle = make_oracle(f"teacher:{tmp_path / 'model'}")
    assert isinstance(oracle, JittableOracle)
    with Labeller(oracle, LabelStore(tmp_path / "labels.db")) as labeller:
        (labels,) = labeller.label([water()])
    assert labels.energy == teacher.label(water()).energy
    assert oracle.identity == teacher.identity


def test_a_teacher_can_be_sent_to_a_worker(teacher):
    copy = pickle.loads(pickle.dumps(teacher))
    np.testing.assert_array_equal(copy.label(water()).forces, teacher.label(water()).forces)
    assert copy.identity == teacher.identity


def test_bad_input_is_refused(teacher):
    with pytest.raises(ValueError, match="Si"):
        teacher.label(water().replace(atomic_numbers=np.full(9, 14)))
    with pytest.raises(ValueError, match="head 2"):
        Teacher(teacher.potential, teacher.params, head=2)
    with pytest.raises(ValueError, match="float16"):
        Teacher(teacher.potential, teacher.params, dtype="float16")
