"""Shared parts of the experiments' entry points: their options, presets, and one line for errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from experiments.lab.run import Outcome, Run, presets_of, resolved
from experiments.lab.units import Results, Unit, run_units
from mlipjax import runtime
from mlipjax.cli.main import guarded
from mlipjax.models import registry


def run_experiment(main: Callable[[Any], None], kind: type, arguments: Sequence[str] | None = None) -> int:
    """Read the options of the command line (or ``arguments``), run ``main`` with them, return the exit code.

    ``--preset NAME`` chooses among the claim's ``PRESETS``, the first by default; the other options change its fields.
    Errors that a user can mend are one line on stderr; ``MLIPJAX_TRACEBACK=1`` shows where they come from. Options with
    a method ``resolved`` are resolved first.

    Args:
        main: what a run does.
        kind: of its options; the module that defines it is the claim's notebook.
        arguments: in place of those of the command line.
    """
    presets, notebook = presets_of(kind), sys.modules[kind.__module__]
    names = "" if len(presets) == 1 else f"\n\n--preset NAME chooses the defaults: {', '.join(presets)}."
    described = f"{(notebook.__doc__ or '').strip()}{names}"

    def action() -> None:
        name, rest = _take_preset(list(sys.argv[1:] if arguments is None else arguments), list(presets))
        prog = f"python -m {notebook.__name__.removesuffix('.config')}"
        config = tyro.cli(kind, default=presets[name], args=rest, prog=prog, description=described)
        runtime.prepare_process()
        runtime.keep_programs(registry.programs_folder())
        main(resolved(config))

    return guarded(action, also=(RuntimeError,))


def run_parts(
    units_of: Callable[[Any], Sequence[Unit]],
    collect: Callable[[Any, Results], Mapping[str, Any]],
    outcome: Callable[[dict[str, Any]], Outcome],
    config: Any,
    *,
    check: Callable[[Any], object] | None = None,
    again: bool = False,
) -> None:
    """Run the units of a claim that are missing; write ``results.json``, ``report.html`` and the figures.

    Args:
        units_of: everything that is computed with a config.
        collect: results of the claim from those of its units.
        outcome: what the results show and say.
        config: options of this run.
        check: says what cannot be run, before the first minute.
        again: collect the results of a run that is done anew.
    """
    if check is not None:
        check(config)
    run = Run(config)
    if again or (results := run.stored()) is None:
        done = run_units(units_of(config), config.out / "units", run.console, config.workers)
        results = run.results(collect(config, done))
    run.finish(results, outcome(results))


def _take_preset(arguments: list[str], names: list[str]) -> tuple[str, list[str]]:
    """Take ``--preset NAME`` out of the arguments; by default the first name."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--preset":
            found = value if equals else "".join(arguments[position + 1 : position + 2])
            if found not in names:
                raise ValueError(f"--preset is {found!r}; choose one of {', '.join(names)}.")
            return found, arguments[:position] + arguments[position + (1 if equals else 2) :]
    return names[0], arguments
