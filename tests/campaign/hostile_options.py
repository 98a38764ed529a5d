"""Hostile command lines: every option of every command, with values that its type allows and nobody means."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
from campaign.hostile_case import Case, Kind
from campaign.mutations import pick

WORK = {
    "steps", "epochs", "points", "every", "resamples", "replay_size", "validate_every", "snapshots", "monitor_every",
    "tsne_seeds", "rounds", "labels_per_round", "train_steps", "replicas",
}  # fmt: skip
"""Options that ask for work: a huge value is no fault, it takes long."""

INTEGERS = (
    "-1",
    "0",
    "-1000000000",
    "1.5",
    "nan",
    "",
    "x",
    "1e3",
    "99999999999999999999999999",
    "0x4",
    "1_0",
    " 3",
    "True",
)
HUGE = ("1000000000", "1000000000000000", "4000")
FLOATS = ("nan", "-1", "0", "inf", "-inf", "1e300", "-1e300", "1e-300", "x", "", "1e999", "0x1p3", "1_0", "-0.0")
TEXTS = ("", "x", "nan", "-", "--", "[/b]", "ase:", "ase:os:getcwd", "ase:no.module:f", "ase:math:sqrt", "a" * 300,
    "é\u202e", "none",
         "../../..", "model", "%s{0}", "Xx", "1", "O")  # fmt: skip
PATHS = ("", "/", "/dev/null", ".", "no/such/file.extxyz", "[/b].extxyz", "a" * 300, "/proc/self/mem", "/dev/full",
    "no file@:2",
         "-", "~", "~nobody/x", "a\nb")  # fmt: skip

TRAIN = ("--epochs", "1", "--anchor", "none", "--batch-size", "4", "--valid-fraction", "0.3")


def base_command(command: str, good: Path, folder: Path, variant: int) -> list[str]:
    """A short run of a command that succeeds."""
    model = ["--model", str(good / "model")]
    crystal, data = str(good / "crystal.extxyz"), str(good / "crystals.extxyz")
    probes: list[list[str]] = [
        [*model, "eos", "--structure", crystal],
        [*model, "elastic", "--structure", crystal],
        [*model, "dimer", "--elements", "Mg", "O"],
        [*model, "softening", "--data", data],
        [*model, "gamma", "--structure", crystal],
        ["rdf", "--trajectory", data],
        ["order", "--trajectory", data],
        ["diffusion", "--trajectory", data, "--spacing-ps", "0.1"],
        ["events", "--trajectory", data, "--spacing-ps", "0.1"],
    ]
    return {
        "evaluate": [*model, "--data", data],
        "doctor": [*model, "--train", data],
        "finetune": [*model, "--train", data, "--out", str(folder / "run"), *TRAIN],
        "predict": [*model, "--data", data, "--write", str(folder / "predicted.extxyz")],
        "relax": [*model, "--structure", crystal, "--out", str(folder / "relaxed"), "--steps", "3"],
        "periodic": [
            *model, "--structure", crystal, "--out", str(folder / "loop"), "--oracle", "lj:sigma=1.8,epsilon=0.01",
            "--rounds", "1", "--labels-per-round", "2", "--steps", "2", "--train-steps", "2",
        ],
        "engine": [
            ("ipi", "lammps")[variant % 2], *model, "--structure", crystal, "--out", str(folder / "engine"),
        ],
        "export": [*model, "--structure", crystal, "--out", str(folder / "bundle"), "--platform", "cpu"],
        "distill": [
            "--teacher", str(good / "model"), "--structures", data, "--out", str(folder / "distilled"), "--epochs", "1",
            "--temperatures", "300", "--trajectories", "1", "--frames", "1", "--frame-spacing", "1", "--rattles", "1",
            "--test-ps", "0.01",
        ],
        "simulate": [
            *model, "--structure", crystal, "--out", str(folder / "md.extxyz"), "--steps", "4", "--every", "2",
        ],
        "calibrate": [*model, "--train", data, "--valid", data, "--out", str(folder / "calibrated")],
        "monitor": [*model, "--reference", str(good / "reference.extxyz"), "--data", data, "--level", "0.2"],
        "compare-representations": [
            "--models", str(good / "model"), str(good / "model"), "--data", data, "--tsne-seeds", "0",
            "--resamples", "2",
        ],
        "neb": [*model, "--images", data, "--steps", "2", "--n-images", "3", "--no-relax-ends"],
        "slide": [*model, "--structure", crystal, "--points", "2", "--no-relaxed"],
        "probe": probes[variant % len(probes)],
        "models": [],
        "convert": [*model, "--out", str(folder / "copy")],
    }[command]  # fmt: skip


COMMANDS = (
    "calibrate", "evaluate", "predict", "relax", "doctor", "finetune", "periodic", "distill", "simulate", "simulate",
    "monitor", "compare-representations", "neb", "slide", "probe", "probe", "probe", "models", "convert",
    "engine", "export",
)  # fmt: skip


def make_options(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """One or two hostile options behind a good command line."""
    command = pick(rng, COMMANDS)
    arguments = base_command(command, good, folder, int(rng.integers(9)))
    options = option_types(command)
    for name in rng.choice(sorted(options), size=min(len(options), int(pick(rng, [1, 1, 1, 2]))), replace=False):
        arguments += [f"--{name.replace('_', '-')}", *hostile_values(rng, str(name), options[name])]
    return Case(None, " ".join(arguments[:200])[:300], arguments=(command, *arguments))


def option_types(command: str) -> dict[str, Any]:
    """Options of a command and their types; those of nested dataclasses too. ``--json`` needs no test of ours."""
    from mlipjax.cli.main import options_of

    return dict(_fields(options_of(command)))


def _fields(options: Any) -> Any:
    found = typing.get_type_hints(options)
    for field in dataclasses.fields(_bare(options)):
        kind = found[field.name]
        if dataclasses.is_dataclass(_bare(kind)):
            yield from _fields(_bare(kind))
        elif field.name not in ("probe", "kind", "what") and not (
            field.name == "name" and options.__name__ == "Engine"
        ):
            yield field.name, kind


def _bare(kind: Any) -> Any:
    """A type without ``Annotated``."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def hostile_values(rng: np.random.Generator, name: str, kind: Any) -> list[str]:
    """Words that follow the name of an option on the command line."""
    kind = _bare(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return hostile_values(rng, name, next(option for option in arguments if option is not type(None)))
    if origin is tuple:
        if arguments[-1] is ...:
            count = int(pick(rng, [0, 1, 2, 5]))
            return [hostile_values(rng, name, arguments[0])[0] for _ in range(count)]
        return [hostile_values(rng, name, argument)[0] for argument in arguments]
    if origin is typing.Literal:
        return [pick(rng, [*map(str, arguments), "x", ""])]
    if kind is bool:
        return []
    if kind is int:
        return [pick(rng, INTEGERS if name in WORK else (*INTEGERS, *HUGE))]
    if kind is float:
        return [pick(rng, FLOATS)]
    return [pick(rng, PATHS if kind is Path else TEXTS)]


KINDS = (Kind("options", make_options),)
