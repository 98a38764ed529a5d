"""Ensembles as physics: conserved quantities, canonical averages, pressure, momentum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_md.simulate import nose_hoover_chain
from pair_potential import argon, argon_spec, pair_potential

import mlipjax.md as md
from mlipjax.units import BAR, BOLTZMANN, FEMTOSECOND

N_REPLICAS = 16
N_STEPS = 16
LIMITS = md.Limits(temperature_K=1e4, contact_ratio=0.5)


@functools.cache
def compiled_chunk():
    """Optimised, unlike most programs of tests: it runs for thousands of steps, a third as long each."""
    chunk = md.chunk(pair_potential()[0], argon_spec(), N_STEPS)
    return jax.jit(chunk, compiler_options={"xla_backend_optimization_level": 2})


def start(ensemble, lattice=5.3, n_replicas=N_REPLICAS, seed=0):
    start = md.Start(argon(lattice))
    return md.init(pair_potential(), argon_spec(), start, ensemble, jax.random.key(seed), n_replicas)


def simulate(state, ensemble, n_chunks):
    """Traces of temperature and pressure (R, S), cells after every chunk (R, n_chunks, 3, 3), and the end state."""
    traces, cells = [], []
    for _ in range(n_chunks):
        state, info = compiled_chunk()(pair_potential()[1], md.rebuild(argon_spec(), state), ensemble, LIMITS)
        assert info.valid.all()
        assert info.good.all()
        traces.append(info.trace)
        cells.append(state.dynamics.cell)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *traces), np.stack(cells, axis=1), state


def mean_and_error(samples, n_blocks=2):
    """Mean of (R, S) samples, and its standard error from means of blocks, each longer than the correlation time."""
    n_replicas, n_steps = samples.shape
    blocks = samples[:, : n_steps // n_blocks * n_blocks].reshape(n_replicas * n_blocks, -1).mean(axis=1)
    return blocks.mean(), blocks.std(ddof=1) / np.sqrt(len(blocks))


def conserved_energy(ensemble, dynamics):
    """Energy of one replica and of the thermostats and barostat it is coupled to."""
    kT = BOLTZMANN * ensemble.temperature_K
    energy = dynamics.energy + md.kinetic_energy(dynamics.momentum, dynamics.mass)
    dof = md.degrees_of_freedom(len(dynamics.mass))

    def chain_energy(chain, degrees):
        first = chain.momentum[0] ** 2 / (2 * chain.mass[0]) + degrees * kT * chain.position[0]
        return first + jnp.sum(chain.momentum[1:] ** 2 / (2 * chain.mass[1:]) + kT * chain.position[1:])

    if dynamics.chain is not None:
        energy += chain_energy(dynamics.chain, dof)
    if dynamics.barostat is not None:
        volume = jnp.linalg.det(dynamics.cell)
        energy += chain_energy(dynamics.barostat.chain, 1) + ensemble.pressure_bar * BAR * volume
        energy += dynamics.barostat.momentum**2 / (2 * ensemble.cell_mass(len(dynamics.mass)))
    return energy


ENSEMBLES = {
    "nve": md.NVE(5.0, 90.0),
    "langevin": md.Langevin(5.0, 90.0, 20.0),
    "csvr": md.CSVR(5.0, 90.0, 50.0),
    "nose-hoover": md.NoseHoover(5.0, 90.0, 150.0),
    "npt": md.IsotropicNPT(5.0, 60.0, 1000.0, 150.0, 600.0),
}


@pytest.mark.parametrize("name", ["nve", "nose-hoover", "npt"])
def test_conserved_energy_drifts_with_the_square_of_the_time_step(name):
    errors = []
    # the cell must not swell by more than the skin allows within a chunk of 16 steps
    longest = 4.0 if name == "npt" else 8.0
    for dt, n_chunks in ((longest, 4), (longest / 2, 8)):
        ensemble = ENSEMBLES[name].replace(timestep_fs=dt)
        state = start(ensemble)
        total = jax.jit(jax.vmap(functools.partial(conserved_energy, ensemble)))
        first, energies = total(state.dynamics), []
        for _ in range(n_chunks):
            _, _, state = simulate(state, ensemble, 1)
            energies.append(total(state.dynamics))
        # the same two moments for both time steps
        moments = np.stack(energies[n_chunks // 2 - 1 :: n_chunks // 2])
        errors.append(np.sqrt(np.mean((moments - np.asarray(first)[None]) ** 2)))
    order = np.log2(errors[0] / errors[1])
    assert 1.7 < order < 2.3
    assert errors[1] < 1e-3  # eV; the kinetic energy is 0.2 eV or more


@pytest.mark.parametrize("name", ["langevin", "csvr", "nose-hoover"])
def test_temperature_is_canonical(name):
    ensemble = ENSEMBLES[name]
    _, _, state = simulate(start(ensemble, lattice=5.8), ensemble, 16)
    trace, _, state = simulate(state, ensemble, 70)
    kelvin = trace.temperature
    target, variance = ensemble.temperature_K, 2.0 * ensemble.temperature_K**2 / (3 * 32 - 3)

    mean, error = mean_and_error(kelvin)
    assert error < 0.006 * target  # counting 3 N degrees of freedom would be 3 % off
    assert abs(mean - target) < 4 * error
    spread, error = mean_and_error((kelvin - target) ** 2)
    assert error < 0.08 * variance
    assert abs(spread - variance) < 4 * error


@pytest.mark.parametrize("name", sorted(ENSEMBLES))
def test_centre_of_mass_stays_at_rest(name):
    ensemble = ENSEMBLES[name]
    _, _, state = simulate(start(ensemble), ensemble, 1)
    momentum = np.asarray(state.dynamics.momentum)
    assert np.abs(momentum.sum(axis=1)).max() < 1e-12 * np.abs(momentum).sum()


def test_pressure_is_minus_the_derivative_of_energy_with_volume():
    def energy_and_stress(scale):
        system = argon()
        system = system.replace(positions=system.positions * scale, cell=system.cell * scale)
        state = md.init(pair_potential(), argon_spec(), md.Start(system), ENSEMBLES["npt"], jax.random.key(0))
        return float(state.dynamics.energy[0]), state.dynamics.stress[0], np.linalg.det(system.cell)

    up, _, large = energy_and_stress(1.0 + 1e-4)
    down, _, small = energy_and_stress(1.0 - 1e-4)
    _, stress, _ = energy_and_stress(1.0)
    cold = md.pressure(jnp.zeros((32, 3)), jnp.ones((32, 1)), stress, jnp.asarray(argon().cell))
    assert float(cold) == pytest.approx(-(up - down) / (large - small), rel=1e-5)


def test_npt_reaches_its_pressure():
    ensemble = ENSEMBLES["npt"]
    _, _, state = simulate(start(ensemble), ensemble, 30)
    trace, cells, _ = simulate(state, ensemble, 90)
    mean, error = mean_and_error(trace.pressure / BAR)
    assert error < 3.0  # without the kinetic part it would be 200 off, counting N instead of N - 1 atoms 7
    assert abs(mean - ensemble.pressure_bar) < 4 * error
    mean, error = mean_and_error(trace.temperature)
    assert abs(mean - ensemble.temperature_K) < 4 * error
    # the cell moved, and kept its shape
    lengths = np.linalg.norm(cells, axis=-1)
    assert np.ptp(lengths) > 0.02
    assert np.allclose(cells, lengths[..., :1, None] * np.eye(3), atol=1e-12)


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_chain_moves_as_that_of_jax_md(length):
    rng = np.random.default_rng(length)
    ensemble = md.NoseHoover(1.0, 300.0, 50.0, length)
    dynamics = jax.tree.map(lambda x: x[0], start(ensemble, n_replicas=1).dynamics)
    thermostats = np.sqrt(dynamics.chain.mass * BOLTZMANN * 300.0) * rng.uniform(0.5, 2.0, length)
    dynamics = dynamics.set(chain=dynamics.chain.set(momentum=thermostats))
    # half a kick without forces, which the thermostat follows
    found = ensemble.after(dynamics.set(force=jnp.zeros_like(dynamics.force)))

    theirs = nose_hoover_chain(FEMTOSECOND, length, 2, 3, 50.0 * FEMTOSECOND)
    kT, kinetic = BOLTZMANN * 300.0, md.kinetic_energy(dynamics.momentum, dynamics.mass)
    chain = theirs.update_mass(dynamics.chain.set(kinetic_energy=kinetic), kT)
    momentum, chain = theirs.half_step(dynamics.momentum, chain, kT)
    assert np.abs(momentum / dynamics.momentum - 1.0).max() > 1e-4
    # jax-md has its weights in single precision
    np.testing.assert_allclose(found.momentum, momentum, rtol=1e-8)
    for ours, other in zip(jax.tree.leaves(found.chain), jax.tree.leaves(chain), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-6)
