"""Dynamics of ``experiments.reactive``: growth of sodium from its melt, and formate on hot copper."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import jax
import numpy as np

from experiments.reactive.models import Model, or_why_not
from experiments.reactive.structures import half_molten, sodium
from experiments.reactive.tuning import load_formate
from mlipjax.md import SimulationStopped, Start, atomic_masses, make_ensemble, run
from mlipjax.probes.diffusion import diffusion
from mlipjax.probes.events import bond_events
from mlipjax.probes.order import crystal_order
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.trajectory import Trajectory
from mlipjax.probes.vibrations import vibrational_spectrum
from mlipjax.relaxation import relax
from mlipjax.system import System
from mlipjax.units import FEMTOSECOND

MELT, GROWTH = 900.0, 300.0
"""K; sodium melts at 371 K."""

_NA_FS = 4.0  # fs: the heaviest vibrations of sodium take 250 fs
_Q6_CUTOFF = 4.95  # Å: two shells of bcc sodium
_MELT_STEPS = 250
HOT = 600.0
"""K, of formate on copper."""

SURFACE_FS = 0.5
_SURFACE_EVERY = 6  # steps between frames: 3 fs resolve the C-H stretch (11 fs)


def half_molten_start(oracle: str) -> dict[str, Any]:
    """Positions of sodium of which half is crystal and half melt, Å, by the dynamics of a model."""
    solid = sodium()
    liquid = _simulate(Model.load(oracle), _shaken(solid), _MELT_STEPS, MELT, _MELT_STEPS, _NA_FS)
    return {"positions": half_molten(solid, liquid.system(-1)).positions.tolist()}


@or_why_not(SimulationStopped)
def growth(name: str, steps: int, melt: dict[str, Any]) -> dict[str, Any]:
    """Half-molten sodium at 300 K: its order against time."""
    model, start = Model.load(name), dataclasses.replace(sodium(), positions=np.array(melt["positions"]))
    # contacts where crystal and melt were joined are eased first
    eased = relax(model.own, [start], fmax=0.1, max_steps=15).systems[0]
    trajectory = _simulate(model, eased, steps, GROWTH, max(1, steps // 40), _NA_FS)
    return crystal_order(trajectory, _Q6_CUTOFF).as_dict()


@or_why_not(SimulationStopped)
def surface(name: str, n_test: int, steps: int) -> dict[str, Any]:
    """Formate on copper at 600 K from the lowest of the published frames: its bonds, its motion and its spectrum."""
    pool = load_formate(n_test).pool
    start = pool.systems[int(np.argmin([float(labels.energy) for labels in pool.labels]))]
    trajectory = _simulate(Model.load(name), start, steps, HOT, _SURFACE_EVERY, SURFACE_FS)
    events = bond_events(trajectory, elements=(1, 6, 8))
    second = trajectory.part(slice(trajectory.n_frames // 2, None))
    pairs = radial_distribution(second, longest=3.0, n_shells=60)
    moved = diffusion(trajectory, n_blocks=3)
    spectrum = vibrational_spectrum(trajectory)
    return {
        "events": dict(Counter(f"{event.pair} {event.kind}" for event in events.events)),
        "events_verdict": events.verdict,
        "peaks_A": {pair: pairs.first_peak(pair) for pair in pairs.pairs if pair in ("C-O", "C-H", "H-C", "O-C")},
        "diffusion_verdict": moved.verdict,
        "spectrum_verdict": spectrum.verdict,
        "spectrum": {"frequencies_THz": spectrum.frequencies_THz.tolist(), "density": spectrum.density.tolist()},
    }


def _simulate(model: Model, start: System, steps: int, temperature: float, every: int, step_fs: float) -> Trajectory:
    positions: list[np.ndarray] = []
    momenta: list[np.ndarray] = []

    def keep(state: Any, info: Any) -> None:
        positions.extend(np.asarray(info.frames.position[0], np.float64))
        momenta.extend(np.asarray(info.frames.momentum[0], np.float64))

    ensemble = make_ensemble("nvt", timestep_fs=step_fs, temperature_K=temperature, friction_per_ps=5.0)
    steps = steps // every * every
    run(model.own, Start(start), ensemble, steps, key=jax.random.key(0), frame_every=every, on_chunk=keep)
    # sqrt(eV/amu) is one Å per internal unit of time
    velocities = np.array(momenta) / atomic_masses(start.atomic_numbers)[:, None] * 1000.0 * FEMTOSECOND
    cells = np.tile(np.asarray(start.cell, np.float64), (len(positions), 1, 1))
    numbers = np.asarray(start.atomic_numbers)
    return Trajectory(np.array(positions), numbers, cells, start.pbc, every * step_fs / 1000.0, velocities)


def _shaken(system: System) -> System:
    """Far from its lattice, so that it melts at once when hot."""
    noise = np.random.default_rng(0).normal(size=np.shape(system.positions))
    return dataclasses.replace(system, positions=np.asarray(system.positions) + 0.45 * noise)


def file_name(name: str) -> str:
    """A model's name as part of a file's name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
