"""Forces on the images of a band, against ASE's."""

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.mep.neb import NEBState

from mlipjax.relaxation.band import band_forces


def test_forces_on_a_band_are_those_of_ase():
    rng = np.random.default_rng(0)
    n_images, n_atoms = 7, 4
    path = np.cumsum(rng.normal(size=(n_images, n_atoms, 3)), axis=0)
    for trial in range(5):
        energies = rng.normal(size=n_images)
        energies[3] = 3.0 + trial
        forces = rng.normal(size=(n_images, n_atoms, 3))
        images = [Atoms("H4", positions) for positions in path]
        band = NEB(images, k=0.7, climb=True, method="improvedtangent")
        band.energies, band.real_forces = energies, forces
        band.emax, band.imax = energies[3], 3
        state = NEBState(band, images, energies)
        reference = forces[1:-1].copy()
        for i in range(1, n_images - 1):
            spring1, spring2 = state.spring(i - 1), state.spring(i)
            tangent = band.neb_method.get_tangent(state, spring1, spring2, i)
            along = np.vdot(forces[i], tangent)
            if i == 3:
                reference[i - 1] -= 2.0 * along * tangent
            else:
                band.neb_method.add_image_force(state, along, tangent, reference[i - 1], spring1, spring2, i)
        ours, slope = band_forces(jnp.asarray(path), jnp.asarray(energies), jnp.asarray(forces[1:-1]), 0.7, True)
        np.testing.assert_allclose(ours, reference, atol=1e-12)
        assert slope.shape == (n_images - 2,)


def test_no_image_climbs_above_an_end_that_is_highest():
    rng = np.random.default_rng(1)
    path, forces = np.cumsum(rng.normal(size=(5, 2, 3)), axis=0), rng.normal(size=(3, 2, 3))
    downhill = np.array([2.0, 1.0, 0.5, 0.2, 0.0])
    still, _ = band_forces(jnp.asarray(path), jnp.asarray(downhill), jnp.asarray(forces), 1.0, False)
    climbing, _ = band_forces(jnp.asarray(path), jnp.asarray(downhill), jnp.asarray(forces), 1.0, True)
    np.testing.assert_array_equal(still, climbing)
