"""``mlipjax models``: the potentials that ``mlipjax.load`` knows by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mlipjax.cli.options.models import Models
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.tables import Table
from mlipjax.elements import symbols
from mlipjax.models import registry
from mlipjax.models.storage import CONFIG


def run(command: Models) -> None:
    """Print the table."""
    rows = [_describe(entry) for entry in registry.known_entries()]
    console = make_console(quiet=command.quiet)
    table = []
    for row in rows:
        size = "not here yet" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f} MB"
        elements = str(len(row["elements"])) if row["elements"] else ""
        table.append((row["name"], elements, size, row["level"], row["licence"]))
    console.print(Table(("name", "elements", "size", "labels", "licence"), table, words=True))
    # a line each: in a column of a narrow terminal paths and URLs could be neither read nor copied
    for row in rows:
        place = row["path"] or row["url"] or "not installed"
        hash_ = "" if row["verified"] else " (SHA-256 is recorded at the first use)"
        console.print(f"{row['name']}: {place}{hash_}")
        if row["elements"]:
            console.print(f"  knows {element_ranges(row['elements'])}")
    console.print(
        "--model also takes a .nqx file, a .model file of mace-torch, a folder saved by mlipjax, and (predict, relax, "
        "evaluate, probe, experiments.migration, experiments.reactive) any ASE calculator as ase:module:factory.",
    )
    write_json(command.json, {"models": rows})


def _describe(entry: registry.Entry) -> dict[str, Any]:
    path = registry.find_local(entry)
    elements = entry.elements
    if not elements and path is not None:
        elements = json.loads((path / CONFIG).read_text(encoding="utf-8"))["config"]["species"]
    return {
        "name": entry.name,
        "elements": list(elements),
        "bytes": None if path is None else _size(path),
        "level": entry.level,
        "licence": entry.licence,
        "terms": entry.terms,
        "verified": entry.verified,
        "citation": entry.citation,
        "path": None if path is None else str(path),
        "url": entry.url,
    }


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def element_ranges(numbers: Sequence[int]) -> str:
    """Element symbols, with runs of three or more as a range.

    >>> element_ranges([1, 3, 4, 5, 8, 9])
    'H, Li-B, O, F'
    """
    parts = []
    # numbers minus their rank are constant along a run
    for _, run_of_pairs in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = symbols(number for _, number in run_of_pairs)
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else run
    return ", ".join(parts)
