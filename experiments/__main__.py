"""All claims at a glance: what their stored runs found, beside what was expected of them.

    python -m experiments                            # the table
    python -m experiments --write                    # results.md, and the table and figures of README.md
    python -m experiments --write runs/periodic ...  # the same, after taking over the results of finished runs

``python -m experiments.CLAIM --help`` explains a claim and its options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.lab import record
from experiments.lab.display import Table, make_console
from mlipjax.files import write_atomic

COLUMNS = ("claim", "answer", "command", "minutes", "number")
RESULTS = record.EXPERIMENTS / "results.md"
README = record.EXPERIMENTS / "README.md"
TABLE, FIGURES = (tuple(f"<!-- {what}: {end} -->" for end in ("begin", "end")) for what in ("claims", "figures"))


def rows() -> list[tuple[str, ...]]:
    """A row for each stored result; claims without one have a row too."""
    found = []
    for claim in record.claims():
        for result in record.results(claim).values() or (None,):
            command = f"python -m experiments.{claim}"
            if result is None:
                found.append((claim, "not run", command, "", ""))
            else:
                found.append((claim, result["answer"], result["command"], _minutes(result), _headline(result)))
    return found


def _minutes(result: dict[str, Any]) -> str:
    return "" if result["minutes"] is None else f"{result['minutes']:g}"


def _headline(result: dict[str, Any]) -> str:
    """The first number that is expected of a result's preset, and whether it was met."""
    rows, wanted = record.judged(result), [row.name for row in record.expected(result["claim"], result["preset"])]
    name, found, promise, met = next((row for row in rows if row[0] in wanted[:1]), rows[0])
    return f"{name}: {found}" + (f" (expected {promise}{', NOT met' * (met == 'NO')})" if met in ("yes", "NO") else "")


def results_page() -> str:
    """``results.md``: every claim with its stored results and the notes beside it."""
    lines = [
        "# What the experiments found",
        "",
        "Made by `python -m experiments --write` from `result-PRESET.json`, `expected.json` and `notes.md` of each",
        "claim. Quick presets are few labels, few steps and one seed where nothing else is said. Brackets are 95 %",
        "bootstrap intervals over frames or structures of few trajectories, and therefore too narrow. Each command",
        "writes a report with figures, too. `--preset full` is sized for an accelerator and has not been run. Where it",
        'says "source", a number is expected because of this run.',
        "",
        *record.markdown(COLUMNS, rows()),
    ]
    for claim in record.claims():
        lines += ["", f"## `experiments.{claim}`", "", *_claim(claim)]
    return "\n".join(lines) + "\n"


def _claim(claim: str) -> Iterator[str]:
    yield from record.notebook(claim).partition("\n\n    python")[0].splitlines()
    stored = record.results(claim)
    if not stored:
        yield from ("", "Not run since results are stored.", "")
        yield from (f"- expected, {row.preset}: {row}" for row in record.expected(claim))
    for preset, result in stored.items():
        seen = f"commit {(result['commit'] or 'unknown')[:10]}, {result['date']}, {result['dtype']}, {result['device']}"
        copied = "; copied from the notebook of that commit, written by hand" if result.get("copied") else ""
        took = f"{_minutes(result)} minutes, " if _minutes(result) else ""
        yield from ("", f"`{result['command']}`: preset {preset}, {took}{seen}{copied}.", "")
        yield from record.markdown(record.COLUMNS, record.judged(result))
        yield from ("", f"**{result['answer']}**: {result['verdict']}")
        for table in result["tables"]:
            yield from ("", *table)
    notes = record.EXPERIMENTS / claim / "notes.md"
    if notes.exists():
        yield from ("", *notes.read_text(encoding="utf-8").strip().splitlines())


def readme_page() -> str:
    """``README.md`` with the table and the figures of claims as they should be."""
    figures: list[str] = []
    for claim in record.claims():
        for preset, file in record.figures(claim).items():
            shown = f"{claim}, preset {preset}: {record.notebook(claim).splitlines()[0]}"
            figures += ["", f"**{shown}**", "", f"![{shown}]({claim}/{file.name})"]
    text = _between(README.read_text(encoding="utf-8"), TABLE, record.markdown(COLUMNS, rows()))
    return _between(text, FIGURES, [*figures, ""])


def _between(text: str, marks: tuple[str, ...], lines: Sequence[str]) -> str:
    before, _, rest = text.partition(marks[0])
    return "\n".join([before + marks[0], *lines, marks[1]]) + rest.partition(marks[1])[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write the pages; return the exit code."""
    parser = argparse.ArgumentParser("python -m experiments", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    text = "write results.md, and table and figures of README.md, after taking over the results of these folders"
    parser.add_argument("--write", nargs="*", type=Path, metavar="RUN", help=text)
    runs = parser.parse_args(arguments).write
    try:
        for run in runs or ():
            print(f"{run} -> {record.take(run)}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if runs is None:
        make_console().print(Table(COLUMNS, rows(), words=True))
    else:
        write_atomic(RESULTS, results_page())
        write_atomic(README, readme_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
