"""Contents of the tables of errors and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlipjax.cli.tables import Table
from mlipjax.train.products import MAE, RELATIVE

_ROWS = (
    ("energy: mean, meV/atom", "energy_mean_meV_per_atom"),
    ("energy: std, meV/atom", "energy_std_meV_per_atom"),
    ("energy: RMSE, meV/atom", "energy_rmse_meV_per_atom"),
    ("energy: MAE, meV/atom", "energy_mae_meV_per_atom"),
    ("forces: MAE, meV/Å", "force_mae_meV_per_A"),
    ("forces: RMSE, meV/Å", "force_rmse_meV_per_A"),
    ("forces: slope", "force_slope"),
    ("stress: MAE, meV/Å³", "stress_mae_meV_per_A3"),
)
_PRODUCTS = (("Hessian products: MAE, eV/Å²", MAE), ("Hessian products: relative", RELATIVE))
"""Rows that only some reports have."""


def error_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Main errors with 95 % intervals, one column per report."""
    sizes = (f"{name} (n = {report['n_frames']})" for name, report in reports.items())
    rows = [
        (label, *(with_interval(report[key], report["confidence_95"][key]) for report in reports.values()))
        for label, key in (*_ROWS, *(_PRODUCTS if all(MAE in report for report in reports.values()) else ()))
    ]
    return Table(("error", *sizes), rows)


def element_table(report: Mapping[str, Any]) -> Table:
    """Force errors per element."""
    keys = ("force_mae_meV_per_A", "force_rmse_meV_per_A", "force_slope", "force_reference_mean_norm_meV_per_A")
    rows = [
        (symbol, str(row["n_atoms"]), *(number(row[key]) for key in keys))
        for symbol, row in report["per_element"].items()
    ]
    headings = ("element", "atoms", "force MAE", "force RMSE", "slope", "mean |F|")
    return Table(headings, rows, "forces, meV/Å")


def uncertainty_tables(report: Mapping[str, Any]) -> list[Table]:
    """Error bars against errors, and what finds the structures with the largest force errors."""
    words = {
        "coverage_68": "within 1 std (68 %)",
        "coverage_95": "within 1.96 std (95 %)",
        "spearman": "Spearman with |error|",
        "auroc": "AUROC, largest tenth",
    }

    def cell(found: Mapping[str, Any] | None, key: str) -> str:
        return "-" if found is None or key not in found else with_interval(found[key], found["confidence_95"][key])

    size = f"n = {report['n_structures']}, {report['n_groups']} groups"
    headings = f"{report['method']} ({size})", "energies", "forces of atoms"
    rows = [(text, *(cell(report[part], key) for part in ("energy", "forces"))) for key, text in words.items()]
    indices = {f"{report['method']}, rms std of forces": report["structures"], **report.get("charts", {})}
    found = [(name, *(cell(own, key) for key in ("spearman", "auroc"))) for name, own in indices.items()]
    title = f"error bars cost {number(report['cost'])} plain predictions"
    return [
        Table(headings, rows, title),
        Table(("structures, rms error of forces", words["spearman"], words["auroc"]), found),
    ]


def settings_table(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Settings with their reasons."""
    return Table(("setting", "value", "why"), list(rows), words=True)


def property_table(reports: Mapping[str, Mapping[str, Any]], unit: str) -> Table:
    """Errors of a property with 95 % intervals, one column per report."""
    words = {"mean": "mean error", "mae": "MAE", "rmse": "RMSE"}
    sizes = (f"{name} (n = {report['n']})" for name, report in reports.items())
    rows = [
        (
            f"{label} ({unit})" if unit else label,
            *(with_interval(r[key], r["confidence_95"][key]) for r in reports.values()),
        )
        for key, label in words.items()
    ]
    return Table(("error", *sizes), rows)


def number(value: float | None) -> str:
    """Four significant digits; a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def fixed(value: float, digits: int) -> str:
    """So many digits behind the point; zero has no sign."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A number with its interval."""
    if value is None or interval is None:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"
