"""``mlipjax models``: the potentials that ``mlipjax.load`` knows by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mlipjax.cli.options.formats import Models
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.tables import Table
from mlipjax.elements import symbols
from mlipjax.factory import PACKAGES
from mlipjax.models import registry
from mlipjax.models.storage import CONFIG

_FACTS = (
    "functional", "data", "functionals", "energies", "hubbard_u", "hubbard_elements", "dispersion", "level", "licence",
    "terms", "verified", "citation",
)  # fmt: skip
"""Of an entry that are told as they are."""


def run(command: Models) -> None:
    """Print the table, or what is known of one model."""
    console = make_console(quiet=command.quiet)
    if command.name is not None:
        row = _describe(registry.find_entry(command.name))
        for name, text in _details(row):
            console.print(f"{name:<12} {text}")
        write_json(command.json, row)
        return
    rows = [_describe(entry) for entry in registry.known_entries()]
    table = [
        (
            f"{row['name']} *" if row["path"] else row["name"],
            str(len(row["elements"]) or ""),
            row["functional"],
            row["data"],
            row["licence"].partition(" ")[0],
        )
        for row in rows
    ]
    console.print(Table(("name", "elements", "functional", "data", "licence"), table, words=True))
    console.print("* on this computer; others are downloaded when they are used. ASL: academic use only.")
    console.print("mlipjax models NAME says more of one.")
    console.print(
        "--model also takes a .nqx file, a .model file of mace-torch, a .pth checkpoint of SevenNet and a folder saved "
        "by mlipjax. Where no parameters are needed (predict, relax, evaluate, probe, experiments) it takes any ASE "
        f"calculator, ase:module:factory, and those of {', '.join(PACKAGES)} as ase:NAME or ase:NAME/MODEL."
    )
    write_json(command.json, {"models": rows})


def _details(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", row["name"]
    yield "labels", row["level"]
    yield "energies", row["energies"]
    hubbard = ", ".join(symbols(row["hubbard_elements"]))
    yield "+U", f"on d states of {hubbard} in oxides and fluorides" if hubbard else "none"
    yield "dispersion", "in the labels" if row["dispersion"] else "not in the labels"
    yield "elements", f"{len(row['elements'])}: {element_ranges(row['elements'])}" if row["elements"] else "unknown"
    yield "licence", row["licence"]
    if row["terms"]:
        yield "terms", row["terms"]
    yield "cite", row["citation"]
    yield "place", row["path"] or f"not here; {row['url'] or 'not in this installation'}"
    if row["bytes"] is not None:
        yield "size", f"{row['bytes'] / 1e6:.1f} MB"
    if not row["verified"]:
        yield "SHA-256", "not known to this project: recorded at the first use"


def _describe(entry: registry.Entry) -> dict[str, Any]:
    path = registry.find_local(entry)
    elements = entry.elements
    if not elements and path is not None:
        elements = json.loads((path / CONFIG).read_text(encoding="utf-8"))["config"]["species"]
    return {
        "name": entry.name,
        "elements": list(elements),
        "bytes": None if path is None else _size(path),
        **{fact: getattr(entry, fact) for fact in _FACTS},
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
