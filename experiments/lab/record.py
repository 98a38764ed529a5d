"""Promises of claims and findings of their runs: numbers in files beside each claim, compared and written out.

``CLAIM/expected.json`` holds the numbers that a preset's run should find again, each with its tolerance (the docstring
of ``CLAIM/config.py`` says the same in words). A run leaves ``result.json`` in its folder; ``take`` keeps it as
``CLAIM/result-PRESET.json``, and the first figure of its report beside it. Nothing here computes or loads JAX.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlipjax.files import write_atomic

EXPERIMENTS = Path(__file__).resolve().parents[1]
FILE = "result.json"
"""In the folder of a run."""


class Number(NamedTuple):
    """A number that a run found.

    Attributes:
        value: in ``unit``; ``None`` if the run could not find it.
        unit: such as "meV/Å"; empty for ratios.
        n: structures, runs or calls that it is made from.
        seeds: fine-tunes that it is a mean over.
    """

    value: float | None
    unit: str
    n: int
    seeds: int = 1


@dataclasses.dataclass(frozen=True)
class Expected:
    """A number that a run of a preset should find again.

    Attributes:
        name: as in the numbers of a run.
        preset: whose run.
        value, tolerance: in ``unit``; what other versions, machines and seeds may change.
        unit: of both.
        n, seeds: as in ``Number``.
        commit: of the run that the value is from.
    """

    name: str
    preset: str
    value: float
    tolerance: float
    unit: str
    n: int
    seeds: int
    commit: str

    def __str__(self) -> str:
        amount = f"{self.value:g} ± {self.tolerance:g} {self.unit}".rstrip()
        return f"{self.name}: {amount} (n = {self.n}, {counted(self.seeds, 'seed')})"

    def met(self, found: Number | None) -> bool:
        """Return whether a number lies within the tolerance."""
        return found is not None and found.value is not None and abs(found.value - self.value) <= self.tolerance


def claims() -> list[str]:
    """Names of all claims."""
    return sorted(file.parent.name for file in EXPERIMENTS.glob("*/expected.json"))


def notebook(claim: str) -> str:
    """The lab notebook of a claim: the docstring of its ``config.py``, read without importing it."""
    tree = ast.parse((EXPERIMENTS / claim / "config.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


def expected(claim: str, preset: str | None = None) -> list[Expected]:
    """Return what is expected of a claim's runs, or of those of one preset."""
    rows = json.loads((EXPERIMENTS / claim / "expected.json").read_text(encoding="utf-8"))
    return [row for row in (Expected(**fields) for fields in rows) if preset in (None, row.preset)]


def results(claim: str) -> dict[str, dict[str, Any]]:
    """Stored results of a claim by preset."""
    files = sorted((EXPERIMENTS / claim).glob("result-*.json"))
    return {file.stem.removeprefix("result-"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def numbers(result: Mapping[str, Any]) -> dict[str, Number]:
    """The numbers of a stored result."""
    return {name: Number(**fields) for name, fields in result["numbers"].items()}


def figures(claim: str) -> dict[str, Path]:
    """Kept figures of a claim by preset."""
    return {file.stem.removeprefix("figure-"): file for file in sorted((EXPERIMENTS / claim).glob("figure-*.png"))}


def take(run: Path) -> Path:
    """Keep the result of a finished run, and its first figure, beside its claim.

    Raises:
        FileNotFoundError: if no run has finished there.
        ValueError: if it was no run of a preset.
    """
    result = json.loads((run / FILE).read_text(encoding="utf-8"))
    if result["preset"] is None:
        raise ValueError(f"{run} is no run of a preset: {result['command']}; results are kept of presets alone.")
    file = EXPERIMENTS / result["claim"] / f"result-{result['preset']}.json"
    write_atomic(file, dumps(result))
    if result.get("figure"):
        shutil.copyfile(run / result["figure"], file.with_name(f"figure-{result['preset']}.png"))
    return file


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> list[str]:
    """Lines of a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [*([f"*{title}*", ""] if title else []), *("| " + " | ".join(cells) + " |" for cells in lines)]


def dumps(result: Mapping[str, Any]) -> str:
    """A result as the text of its file."""
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


COLUMNS = ("number", "found", "expected", "met")


def compared(
    found: Mapping[str, Number], wanted: Sequence[Expected], commit: str = ""
) -> list[tuple[str, str, str, str]]:
    """Rows of numbers with what was expected of them; expected numbers that were not found are there too.

    A run of the very ``commit`` that a number is expected from meets nothing: it is the source of the expectation.
    """
    by_name = {row.name: row for row in wanted}
    rows = []
    for name in dict.fromkeys([*found, *by_name]):
        number, row = found.get(name), by_name.get(name)
        told = "-" if number is None or number.value is None else f"{number.value:.3g} {number.unit}".rstrip()
        if row is None:
            rows.append((name, told, "", ""))
        else:
            met = "source" if commit.startswith(row.commit) else "yes" if row.met(number) else "NO"
            rows.append((name, told, f"{row.value:g} ± {row.tolerance:g}", met))
    return rows


def judged(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The same for a stored result."""
    return compared(numbers(result), expected(result["claim"], result["preset"]), result["commit"] or "")


def counted(n: int, what: str) -> str:
    """A number of things: "1 seed", "3 seeds"."""
    return f"{n} {what}{'' if n == 1 else 's'}"
