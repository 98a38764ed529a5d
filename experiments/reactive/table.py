"""The table of ``experiments.reactive``: every model on every observable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.lab.display import Table as Brief

COLUMNS = (
    "system", "observable", "model", "arm", "labels", "value", "reference", "error", "unit", "n", "remark",
)  # fmt: skip
BRIEF_COLUMNS = ("observable", "model", "value", "ref.", "error", "")


def table_rows(results: dict[str, Any]) -> list[list[Any]]:
    """Models x systems x observables, with errors and label counts."""
    parts = (_formate_rows, _event_rows, _workflow_rows, _growth_rows, _surface_rows)
    return [row for part in parts for row in part(results)]


def brief_tables(results: dict[str, Any]) -> list[Brief]:
    """The table by system, for a narrow terminal."""
    tables: dict[str, list[list[str]]] = {}
    for system, observable, model, arm, labels, value, reference, error, unit, _, remark in table_rows(results):
        numbers = ["" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x) for x in (value, reference)]
        off = "" if error is None else f"{error:.3g} {unit}" if isinstance(error, float) else f"{error} {unit}"
        trained = f"{model} {arm}" + (f", {labels} labels" if labels else "")
        # what the numbers are is in the report; what is wrong with them is said here too
        reservation = remark.partition("; ")[2] if numbers[0] or off else remark
        tables.setdefault(system, []).append([observable, trained, *numbers, off, reservation])
    return [Brief(BRIEF_COLUMNS, rows, system) for system, rows in tables.items()]


class _Rows(list[list[Any]]):
    """Rows about one system."""

    def __init__(self, system: str) -> None:
        super().__init__()
        self.system = system

    def put(
        self, who: Sequence[Any], observable: str, unit: str = "", remark: str = "", *,
        value: float | None = None, reference: float | None = None, n: int | None = None,
    ) -> None:  # fmt: skip
        """Add a number and what it should be.

        Args:
            who: model, arm and labels.
            observable: what was measured.
            unit: of the numbers.
            remark: what speaks against them, or why there are none.
            value, reference: the error is their difference.
            n: structures.
        """
        error = None if value is None or reference is None else value - reference
        self.append([self.system, observable, *who, value, reference, error, unit, n, remark])

    def put_error(
        self, who: Sequence[Any], observable: str, unit: str, remark: str, error: float, n: int | None = None
    ) -> None:
        """Add an error of many structures."""
        self.append([self.system, observable, *who, None, None, error, unit, n, remark])


def _formate_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = _Rows("formate on Cu(110)")
    for row in (results["formate"] or {"rows": []})["rows"]:
        who, e = (row["model"], row["arm"], row["labels"]), row["errors"]
        n, seed = e["n_frames"], f"seed {row['seed']}" if row["labels"] else ""
        rows.put_error(who, "energy std", "meV/atom", seed, e["energy_std_meV_per_atom"], n)
        rows.put_error(who, "force MAE", "meV/Å", seed, e["force_mae_meV_per_A"], n)
        interval = "95 % {:.3f} to {:.3f}".format(*row["softening_95"])
        rows.put(who, "force slope", "", interval, value=row["softening"], reference=1.0, n=n)
    return rows


def _event_rows(results: dict[str, Any]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for event in results["events"].values():
        rows, published = _Rows(event["what"]), event["published_eV"]
        level = own_barrier(event["models"][results["oracle"]])
        for model, row in event["models"].items():
            who = (model, "zero-shot", 0)
            if "failed" in row:
                rows.put(who, "barrier", "eV", row["failed"])
                continue
            own = row["own"]
            if row["fixed"] is not None:
                _put_fixed(rows, who, row, level, "on the oracle's path, relative to it")
            source = "published DFT" if published is not None else "reference: the oracle model"
            truth = level if published is None else published
            rows.put(who, "barrier", "eV", source + _reservations(own), value=own["barrier_eV"], reference=truth, n=1)
            if model == results["oracle"] and published is None:
                rows[-1][7] = None  # it is its own reference
        found += rows
    return found


def _put_fixed(rows: _Rows, who: Sequence[Any], row: dict[str, Any], level: float | None, remark: str) -> None:
    rows.put(who, "fixed-path barrier", "eV", remark, value=row["fixed"]["barrier_eV"], reference=level, n=1)


def _workflow_rows(results: dict[str, Any]) -> list[list[Any]]:
    flow = results["workflow"]
    if not flow or "failed" in flow:
        return []
    level = own_barrier(results["events"].get("v-mos2", {"models": {}})["models"].get(results["oracle"], {}))
    rows = _Rows(flow["what"] + " (workflow)")
    for arm, found in flow["arms"].items():
        for seed, row in enumerate(found):
            who = (results["driver"], arm, row["labels"])
            if "path_force_rmse_meV_per_A" in row:
                error = row["path_force_rmse_meV_per_A"]
                rows.put_error(who, "force RMSE on the path", "meV/Å", f"seed {seed}", error)
                rows.put(who, "force slope", "", "on the path", value=row["softening"], reference=1.0)
            if "failed" in row:
                rows.put(who, "barrier", "eV", row["failed"], reference=level)
                continue
            _put_fixed(rows, who, row, level, "relative to the oracle")
            remark = "relative to the oracle" + _reservations(row["own"])
            rows.put(who, "barrier", "eV", remark, value=row["own"]["barrier_eV"], reference=level, n=1)
    return rows


def _growth_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = _Rows("growth of Na from its melt")
    for model, row in (results["growth"] or {"models": {}})["models"].items():
        who, what = (model, "zero-shot", 0), "d(solid fraction)/dt"
        if "failed" in row:
            rows.put(who, what, "1/ps", row["failed"])
        else:
            remark = f"± {row['rate_error']:.2g}: {row['verdict'].split(':')[0]}"
            rows.put(who, what, "1/ps", remark, value=row["rate_per_ps"], n=results["growth"]["n_atoms"])
    return rows


def _surface_rows(results: dict[str, Any]) -> list[list[Any]]:
    hot = results.get("surface") or {"models": {}, "temperature_K": 0.0}
    rows = _Rows(f"formate on Cu(110) at {hot['temperature_K']:.0f} K")
    for model, row in hot["models"].items():
        who = (model, "zero-shot", 0)
        if "failed" in row:
            rows.put(who, "dynamics", remark=row["failed"])
            continue
        rows.put(who, "bond events", remark=row["events_verdict"], value=float(sum(row["events"].values())), n=1)
        rows.put(who, "spectrum", remark=row["spectrum_verdict"], n=1)
        rows.put(who, "diffusion", remark=row["diffusion_verdict"], n=1)
    return rows


def own_barrier(row: dict[str, Any]) -> float | None:
    """Self-consistent barrier in eV, where there is one."""
    return row["own"]["barrier_eV"] if row.get("own") else None


def _reservations(own: dict[str, Any]) -> str:
    """Objections to a self-consistent barrier."""
    text = "" if own["converged"] else f"; NOT converged ({own['left_eV_per_A']:.2f} eV/Å left)"
    return text if own["climbed"] else text + "; no image climbed: interpolated"
