"""``mlipjax monitor``: whether a model knows structures like these, by charts of its own features."""

from __future__ import annotations

from mlipjax.cli._monitor_tables import print_report
from mlipjax.cli.call import call
from mlipjax.cli.options.judging import Monitor
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.verbs import monitor
from mlipjax.verbs.inputs import name_of, told_paths


def run(command: Monitor) -> None:
    """Fit, read and print."""
    console = make_console(quiet=command.quiet)
    with Working(console, f"reading the charts for {name_of(command.data)}"):
        found = call(monitor, command)
    report = found.report
    print_report(console, report, found.verdict, index=command.index, name=name_of(command.data))
    if command.out is not None:
        console.print(f"charts: {command.out / 'monitor.npz'}; frames furthest out: {command.out / 'report.html'}")
    told = {"reference": told_paths(command.reference), "data": told_paths(command.data)}
    write_json(command.json, {**report, "model": command.model, **told})
