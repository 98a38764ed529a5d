"""Lennard-Jones and Stillinger-Weber against ASE, jax-md and finite differences, in cells of every shape."""

import jax
import jax.numpy as jnp
import jax_md
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones

from mlipjax.graph import batch_graphs
from mlipjax.oracles import JittableOracle, LennardJones, StillingerWeber, check_cutoff
from mlipjax.oracles.ase_calculator import evaluate
from mlipjax.system import System


def rattled(atoms, seed=0, sigma=0.1):
    atoms = atoms.copy()
    atoms.rattle(sigma, seed=seed)
    return System.from_ase(atoms)


ARGON = {
    "crystal": bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2),
    "primitive cell, much shorter than the cutoff": bulk("Ar", "fcc", a=5.3),
    "skewed pair": Atoms(
        "Ar2", positions=[[0, 0, 0], [3.1, 1.9, 2.2]], cell=[[5, 0, 0], [2, 5, 0], [1, 1, 6]], pbc=True
    ),
    "slab": bulk("Ar", "fcc", a=5.3, cubic=True).repeat((1, 1, 2)),
    "cluster": Atoms("Ar4", positions=[[0, 0, 0], [3.7, 0, 0], [0, 3.9, 0], [2, 2, 3.3]]),
}
ARGON["slab"].pbc = (True, True, False)


@pytest.mark.parametrize("name", ARGON)
def test_lennard_jones_equals_ase(name):
    system = rattled(ARGON[name])
    oracle = LennardJones(sigma=3.4, epsilon=0.0103, cutoff=8.0, onset=6.0)
    ours = oracle.label(system)
    reference = evaluate(AseLennardJones(sigma=3.4, epsilon=0.0103, rc=8.0, ro=6.0, smooth=True), system)
    np.testing.assert_allclose(ours.energy, reference.energy, rtol=1e-10)
    np.testing.assert_allclose(ours.forces, reference.forces, atol=1e-11)
    np.testing.assert_allclose(ours.stress, reference.stress, atol=1e-13)
    assert ours.stress_weight == reference.stress_weight == float(all(system.pbc))


def test_stillinger_weber_equals_jax_md():
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)
    atoms.rattle(0.2, seed=3)
    displacement, _ = jax_md.space.periodic(10.86)
    energy = jax_md.energy.stillinger_weber(displacement)
    value, gradient = jax.jit(jax.value_and_grad(energy))(jnp.asarray(atoms.positions))
    ours = StillingerWeber().label(System.from_ase(atoms))
    # jax-md adds 1e-7 to the lengths in the cosine of an angle
    np.testing.assert_allclose(ours.energy, value, rtol=1e-7)
    np.testing.assert_allclose(ours.forces, -gradient, atol=1e-5)


def test_stillinger_weber_cohesive_energy():
    # in the perfect crystal four bonds of the ideal length 2^(1/6) sigma meet at the ideal angle: -2 epsilon per atom
    spacing = 2 ** (1 / 6) * 2.0951 * 4 / np.sqrt(3)
    labels = StillingerWeber().label(System.from_ase(bulk("Si", "diamond", a=spacing)))
    np.testing.assert_allclose(labels.energy / 2, -2 * 2.16826, rtol=1e-6)
    assert np.abs(labels.stress).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_of_a_batch_have_its_precision_and_padding_has_no_weight(dtype):
    oracle = LennardJones(cutoff=7.0, onset=5.0)
    systems = [rattled(ARGON[name]) for name in ("skewed pair", "crystal", "cluster")]
    graph = batch_graphs(systems, 9.0, n_atoms=45, n_graphs=5, dtype=dtype)  # longer edges must be ignored
    labels = jax.jit(oracle.label_graph)(graph)
    assert labels.energy.dtype == labels.forces.dtype == dtype
    singles = [oracle.label(system).energy for system in systems]
    np.testing.assert_allclose(labels.energy[:3], singles, rtol=1e-10 if dtype == np.float64 else 1e-5)
    assert labels.energy_weight.tolist() == [1, 1, 1, 0, 0]
    assert labels.stress_weight.tolist() == [1, 1, 0, 0, 0]


def test_offsets_are_added_for_every_real_atom():
    oracle = LennardJones(cutoff=7.0, onset=5.0)
    graph = batch_graphs([rattled(ARGON["crystal"])], 7.0, n_atoms=40, dtype=np.float64)
    offsets = np.zeros(119)
    offsets[18] = -2.5
    label = jax.jit(oracle.label_graph)
    shifted, plain = label(graph, offsets), label(graph)
    np.testing.assert_allclose(shifted.energy - plain.energy, [-80.0], rtol=1e-12)
    np.testing.assert_array_equal(shifted.forces, plain.forces)


def test_second_derivatives_are_finite_also_at_the_cutoff():
    oracle = StillingerWeber()
    pair = System(
        np.array([[0.0, 0, 0], [oracle.cutoff - 1e-9, 0, 0]]), np.array([14, 14]), np.zeros((3, 3)), (False,) * 3
    )
    graph = batch_graphs([pair], oracle.cutoff, dtype=np.float64)

    def total_force(positions):
        return oracle.label_graph(graph.replace(positions=positions)).forces.sum()

    assert np.isfinite(jax.jit(jax.jacfwd(total_force))(jnp.asarray(graph.positions))).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 < onset < cutoff"):
        LennardJones(cutoff=5.0, onset=6.0)
    with pytest.raises(ValueError, match=r"silicon.*\[18\]"):
        StillingerWeber().label(rattled(ARGON["cluster"]))
    with pytest.raises(ValueError, match=r"8\.5 Å.*6 Å"):
        check_cutoff(LennardJones(), 6.0)
    check_cutoff(LennardJones(), 8.5)
    assert isinstance(LennardJones(), JittableOracle)
    assert LennardJones().identity != LennardJones(sigma=3.41).identity
