"""Pieces without a potential: observables, velocities, schedules, ensembles by name."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlipjax.md as md
from mlipjax.md.observables import center_momentum
from mlipjax.md.schedule import align_chunk, default_chunk_steps, next_piece, shorten_chunk
from mlipjax.units import BOLTZMANN


def water_masses(n_molecules):
    return jnp.asarray(md.atomic_masses([8, 1, 1] * n_molecules))[:, None]


def test_velocities_are_maxwell_boltzmann_with_the_centre_of_mass_at_rest():
    mass, n_draws = water_masses(10), 4000
    keys = jax.random.split(jax.random.key(0), n_draws)
    momenta = jax.vmap(lambda key: md.maxwell_boltzmann(key, mass, 300.0))(keys)
    assert np.abs(momenta.sum(axis=1)).max() < 1e-12
    kelvin = np.asarray(jax.vmap(md.temperature, (0, None))(momenta, mass))
    dof = md.degrees_of_freedom(30)
    error = 300.0 * np.sqrt(2.0 / dof / n_draws)
    assert abs(kelvin.mean() - 300.0) < 4 * error  # 3 N degrees of freedom would be 10 K off
    assert kelvin.std() == pytest.approx(300.0 * np.sqrt(2.0 / dof), rel=0.05)
    # each atom keeps its share: var(p_i) = m_i kT (1 - m_i / M)
    share = np.asarray(mass[:, 0] * BOLTZMANN * 300.0 * (1.0 - mass[:, 0] / mass.sum()))
    np.testing.assert_allclose(momenta.var(axis=(0, 2)), share, rtol=0.08)


def test_exact_temperature_is_exact():
    mass = water_masses(3)
    momentum = md.maxwell_boltzmann(jax.random.key(1), mass, 250.0, exact=True)
    assert float(md.temperature(momentum, mass)) == pytest.approx(250.0, rel=1e-12)


def test_centering_is_a_projection_that_takes_the_same_velocity_off_every_atom():
    mass = water_masses(2)
    momentum = jax.random.normal(jax.random.key(2), (6, 3))
    centered = center_momentum(momentum, mass)
    np.testing.assert_allclose(center_momentum(centered, mass), centered, atol=1e-14)
    velocity = (momentum - centered) / mass
    np.testing.assert_allclose(velocity, jnp.broadcast_to(velocity[0], (6, 3)), atol=1e-14)


def test_masses_and_time_steps_follow_the_elements():
    np.testing.assert_allclose(md.atomic_masses([1, 8, 79]), [1.008, 15.999, 196.967], atol=1e-3)
    for wrong in ([0], [8, 250]):
        with pytest.raises(ValueError, match="no atomic mass"):
            md.atomic_masses(wrong)
    assert [md.default_timestep(z) for z in ([79, 1], [6, 8], [14])] == [0.5, 1.0, 2.0]


def test_limits_leave_room_for_the_fluctuations_of_few_atoms():
    assert md.default_limits(500.0, 100).temperature_K == 2500.0
    assert md.default_limits(10.0, 100).temperature_K == 1500.0
    assert md.default_limits(500.0, 2).temperature_K > 5000.0


@given(
    n_steps=st.integers(1, 400),
    chunk_steps=st.integers(1, 60),
    frame_every=st.integers(1, 120),
)
def test_pieces_cover_the_run_and_record_every_frame(n_steps, chunk_steps, frame_every):
    chunk_steps = align_chunk(chunk_steps, frame_every)
    step, since, frames = 0, 0, []
    while step < n_steps:
        since = 0 if since >= chunk_steps else since
        piece, record = next_piece(step, n_steps, chunk_steps, since, frame_every)
        assert 1 <= piece <= chunk_steps - since
        assert piece % record == 0
        if (step + piece) % frame_every == 0:
            frames += range(step + record, step + piece + 1, record)
        step, since = step + piece, since + piece
    assert step == n_steps
    assert frames == list(range(frame_every, n_steps + 1, frame_every))


def test_chunks_get_shorter_down_to_one_step():
    for frame_every in (1, 7, 100):
        lengths = [align_chunk(50, frame_every)]
        while lengths[-1] > 1:
            lengths.append(shorten_chunk(lengths[-1], frame_every))
        assert all(later < earlier for earlier, later in itertools.pairwise(lengths))


def test_light_and_hot_atoms_ask_for_frequent_searches():
    water, gold = np.array([8, 1, 1]), np.array([79])
    assert default_chunk_steps(gold, 300.0, 2.0, 1.0) > default_chunk_steps(water, 300.0, 0.5, 1.0)
    assert default_chunk_steps(water, 3000.0, 0.5, 1.0) == 5


def test_ensembles_by_name():
    common = {"timestep_fs": 1.0, "temperature_K": 300.0}
    assert isinstance(md.make_ensemble("nve", **common), md.NVE)
    assert isinstance(md.make_ensemble("nvt", **common), md.Langevin)
    assert isinstance(md.make_ensemble("nvt", "csvr", **common), md.CSVR)
    assert isinstance(md.make_ensemble("nvt", "nose-hoover", **common), md.NoseHoover)
    assert md.make_ensemble("npt", pressure_bar=5.0, **common).pressure_bar == 5.0
    with pytest.raises(ValueError, match=r"npt \(nose-hoover\)"):
        md.make_ensemble("npt", "langevin", **common)
    with pytest.raises(ValueError, match=r"temperature_K is -1\.0"):
        md.make_ensemble("nvt", timestep_fs=1.0, temperature_K=-1.0)
