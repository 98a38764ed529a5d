"""``mlipjax probe``: what a model says of bulk, defects, short distances and dynamics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from mlipjax import runtime
from mlipjax.cli.bounds import option
from mlipjax.cli.call import given
from mlipjax.cli.options.common import LABELS, Computes
from mlipjax.cli.options.structures import Probe
from mlipjax.cli.output import make_console, write_json
from mlipjax.notices import notice
from mlipjax.probes.diffusion import diffusion
from mlipjax.probes.dimer import dimer_walls
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.eos import equation_of_state
from mlipjax.probes.evaluator import AseEvaluator, Evaluator, NativeEvaluator
from mlipjax.probes.events import bond_events
from mlipjax.probes.gamma import gamma_modes
from mlipjax.probes.order import crystal_order
from mlipjax.probes.phonons import phonons
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.softening import softening
from mlipjax.probes.trajectory import Trajectory, read_trajectory
from mlipjax.probes.vacancy import vacancy_formation
from mlipjax.probes.vibrations import vibrational_spectrum
from mlipjax.relaxation import relax
from mlipjax.report import save_figure
from mlipjax.system import System
from mlipjax.verbs import read
from mlipjax.verbs.inputs import (
    ForeignModel,
    check_atoms,
    check_known,
    open_model,
    open_native,
    refuse_coincidences,
    unconstrained,
)


def run(command: Probe) -> None:
    """Run the probe, print its verdict, write what was asked for."""
    runtime.select_dtype("float64")
    _say_unused(command)
    result = _PROBES[command.name](command)
    make_console(quiet=command.quiet).print(f"{command.name}: {result.verdict}")
    if command.figure is not None:
        save_figure(result.figure(), command.figure)
    write_json(command.json, {"probe": command.name, "model": command.model, **result.as_dict()})


def _say_unused(command: Probe) -> None:
    """Say which options were given that this probe does not use."""
    used = {"name", "figure", *given(Computes()), *_USES[command.name].split()}
    usual = given(Probe(name=command.name))
    unused = [option(name) for name, value in given(command).items() if name not in used and value != usual[name]]
    if unused := [name for name in unused if name != "--labels"]:
        notice(f"the probe {command.name} does not use {', '.join(unused)}.")


def _evaluator(command: Probe, system: System | None = None) -> Evaluator:
    """The model, which knows the elements of the structure."""
    opened = open_model(_needed(command, "model"), command.head)
    if system is not None:
        check_known(opened, command.structure or (), system.atomic_numbers)
    if isinstance(opened, ForeignModel):
        return AseEvaluator(opened.calculator)
    return NativeEvaluator(opened.first)


def _structure(command: Probe) -> System:
    return unconstrained(_needed(command, "structure"), f"the probe {command.name} moves every atom")


def _frames(command: Probe) -> Trajectory:
    return read_trajectory(_needed(command, "trajectory"), run=command.run, spacing_ps=command.spacing_ps)


def _needed(command: Probe, option: str):
    value = getattr(command, option)
    if value is None or value == ():
        raise ValueError(f"the probe {command.name} needs --{option}.")
    return value


def _numbers(symbols: Iterable[str]) -> list[int]:
    from ase.data import atomic_numbers

    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such element; give symbols such as Cu.")
    return [atomic_numbers[symbol] for symbol in symbols]


def _of_structure(probe: Callable[[Evaluator, System], ProbeResult]) -> Callable[[Probe], ProbeResult]:
    def run(command: Probe) -> ProbeResult:
        system = _structure(command)
        return probe(_evaluator(command, system), system)

    return run


def _gamma(command: Probe) -> ProbeResult:
    opened, system = open_native(_needed(command, "model"), command.head), _structure(command)
    check_known(opened, command.structure or (), system.atomic_numbers)
    return gamma_modes(opened.first, system)


def _phonons(command: Probe) -> ProbeResult:
    system = _structure(command)
    if command.repeat is not None:
        check_atoms(system.n_atoms, command.repeat)
    found = phonons(_evaluator(command, system), system, repeat=command.repeat)
    if command.phonopy is not None:
        found.write_phonopy(command.phonopy)
    return found


def _dimer(command: Probe) -> ProbeResult:
    return dimer_walls(_evaluator(command), _numbers(command.elements) or list(_structure(command).atomic_numbers))


def _vacancy(command: Probe) -> ProbeResult:
    energies = command.reservoirs
    reservoirs = dict(zip(_numbers(energies), energies.values(), strict=True)) or None
    system = _structure(command)
    evaluate = _evaluator(command, system)
    if not isinstance(evaluate, NativeEvaluator):
        return vacancy_formation(evaluate, system, (command.site,), reservoirs=reservoirs)

    def relaxed(systems):
        return relax(evaluate.model, systems, fmax=0.01, dtype="float64").systems

    return vacancy_formation(evaluate, system, (command.site,), reservoirs=reservoirs, relax=relaxed)


def _softening(command: Probe) -> ProbeResult:
    evaluate, data = _evaluator(command), read(_needed(command, "data"), **dataclasses.asdict(command.labels))
    refuse_coincidences(data.systems, data.where)
    if isinstance(evaluate, NativeEvaluator):
        data.check_elements(evaluate.model.potential.check_elements)
    return softening(evaluate, data)


_PROBES: dict[str, Callable[[Probe], ProbeResult]] = {
    "eos": _of_structure(equation_of_state),
    "elastic": _of_structure(elastic_constants),
    "gamma": _gamma,
    "phonons": _phonons,
    "vacancy": _vacancy,
    "dimer": _dimer,
    "softening": _softening,
    "rdf": lambda c: radial_distribution(_frames(c), longest=6.0 if c.cutoff is None else c.cutoff),
    "diffusion": lambda c: diffusion(_frames(c)),
    "vdos": lambda c: vibrational_spectrum(_frames(c)),
    "events": lambda c: bond_events(_frames(c), elements=_numbers(c.elements) or None),
    "order": lambda c: crystal_order(_frames(c), c.cutoff),
}

_USES = {
    **dict.fromkeys(("eos", "elastic", "gamma"), "model head structure"),
    "phonons": "model head structure repeat phonopy",
    "vacancy": "model head structure site reservoirs",
    "dimer": "model head structure elements",
    "softening": f"model head data {LABELS}",
    "rdf": "trajectory run spacing_ps cutoff",
    **dict.fromkeys(("diffusion", "vdos"), "trajectory run spacing_ps"),
    "events": "trajectory run spacing_ps elements",
    "order": "trajectory run spacing_ps cutoff",
}
"""Options that each probe reads, beside those of all."""
