"""Numbers, figures, tables and verdict of ``experiments.migration``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lab.display import Table as BriefTable
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.lab.units import Results
from experiments.migration import figures, units
from experiments.migration.config import Config
from mlipjax.report import Illustration, Table

COLUMNS = (
    "model", "path", "fixed barrier (eV)", "error", "own barrier (eV)", "error", "converged", "climbed",
    "profile RMSE (meV)", "force MAE (meV/Å)",
)  # fmt: skip
BRIEF_COLUMNS = ("model", "fixed (eV)", "own (eV)", "profile (meV)", "forces (meV/Å)")


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units, by model, and what they say."""
    found = units.collect(config, done)
    return {"summary": summarise(found), **found}


def summarise(results: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and spread over seeds of every number, for every model and path, with errors against the oracle."""
    reference = results["reference"]
    summary: dict[str, Any] = {"paths": {}, "crystal": {}}
    for path in results["paths"]:
        truth = reference["paths"][path]
        entries = {"oracle": _path_numbers(truth, truth)}
        for model, seeds in results["models"].items():
            entries[model] = _over_seeds([_path_numbers(seed["paths"][path], truth) for seed in seeds])
        summary["paths"][path] = entries
    crystals = {"oracle": [reference], **results["models"]}
    for model, seeds in crystals.items():
        numbers = [_crystal_numbers(seed["crystal"]) for seed in seeds]
        summary["crystal"][model] = _over_seeds(numbers)
    return summary


def _path_numbers(row: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, float | None]:
    own, true_own = row.get("own"), truth.get("own")
    profile = np.array(row["profile_eV"]) - np.array(truth["profile_eV"])
    forces = np.array(row["forces_eV_per_A"]) - np.array(truth["forces_eV_per_A"])
    return {
        "fixed_eV": row["fixed_path_barrier_eV"],
        "fixed_error_eV": row["fixed_path_barrier_eV"] - truth["fixed_path_barrier_eV"],
        "own_eV": None if own is None else own["barrier_eV"],
        "own_error_eV": _own_error(own, true_own),
        "converged": None if own is None else float(own["converged"]),
        "climbed": None if own is None else float(own["climbed"]),
        # the first image is zero in both
        "profile_rmse_meV": 1e3 * float(np.sqrt(np.mean(profile[1:] ** 2))),
        "force_mae_meV_per_A": 1e3 * float(np.abs(forces).mean()),
    }


def _own_error(own: Mapping[str, Any] | None, truth: Mapping[str, Any] | None) -> float | None:
    """Difference of self-consistent barriers in eV; bands that are still on their way may be at any height."""
    if own is None or truth is None or not (own["converged"] and truth["converged"]):
        return None
    return own["barrier_eV"] - truth["barrier_eV"]


_CRYSTAL = {
    "a_A": "a (Å)", "c_A": "c (Å)", "slide_a": "slide a (meV/Å²)", "slide_a2b": "slide a + 2b (meV/Å²)",
    "c11_GPa": "C11 (GPa)", "c33_GPa": "C33", "c44_GPa": "C44", "converged": "converged",
}  # fmt: skip
"""Numbers of a crystal, and what their table calls them."""


def _crystal_numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    if "failed" in row:
        return dict.fromkeys(_CRYSTAL)
    constants = row["elastic"].get("clamped_GPa")
    c = None if constants is None else np.array(constants)
    tops = {name: float(np.max(profile["relaxed_meV_per_A2"])) for name, profile in row["profiles"].items()}
    fine = row["converged"] and all(profile["converged"] for profile in row["profiles"].values())
    return {
        "a_A": row["a_A"],
        "c_A": row["c_A"],
        "slide_a": tops["a"],
        "slide_a2b": tops["a + 2b"],
        "c11_GPa": None if c is None else float(c[0, 0]),
        "c33_GPa": None if c is None else float(c[2, 2]),
        "c44_GPa": None if c is None else float(c[3, 3]),
        "converged": float(fine),
    }


def _over_seeds(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Means, with the spread over seeds as ``NAME_std`` where there are several."""
    result: dict[str, Any] = {"n_seeds": len(rows)}
    for key in rows[0]:
        values = [value for row in rows if (value := row[key]) is not None]
        result[key] = float(np.mean(values)) if values else None
        if len(values) > 1:
            result[f"{key}_std"] = float(np.std(values, ddof=1))
    return result


_KEYS = (
    "fixed_eV", "fixed_error_eV", "own_eV", "own_error_eV", "converged", "climbed", "profile_rmse_meV",
    "force_mae_meV_per_A",
)  # fmt: skip


def rows_of(summary: Mapping[str, Any]) -> list[list[Any]]:
    """Table of barriers and errors, paths one after the other."""
    return [
        [model, path, *(spread(entry, key) for key in _KEYS)]
        for path, entries in summary["paths"].items()
        for model, entry in entries.items()
    ]


def spread(entry: Mapping[str, Any], key: str) -> float | str | None:
    """A mean, with its standard deviation over seeds where there are several."""
    if entry[key] is None or f"{key}_std" not in entry:
        return entry[key]
    return f"{entry[key]:.4g} ± {entry[f'{key}_std']:.2g}"


def brief_rows(entries: Mapping[str, Any]) -> list[list[str]]:
    """One path for a narrow terminal: barriers, and the errors of profile and forces."""
    rows = []
    for model, entry in entries.items():
        state = "" if entry["converged"] == 1.0 else " not converged"
        own = "–" if entry["own_eV"] is None else _told(entry, "own_eV", ".2f") + state
        errors = (_told(entry, key, ".0f") for key in ("profile_rmse_meV", "force_mae_meV_per_A"))
        rows.append([model, _told(entry, "fixed_eV", ".2f"), own, *errors])
    return rows


def verdict(results: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """One paragraph: what was compared with what, who is nearest on which path, what is not converged."""
    source = (
        f"Reference is the model {results['oracle'].removeprefix('teacher:')}, not DFT: errors are distances from it."
        if results["oracle_is_model"]
        else f"Reference is the user's oracle {results['oracle']}."
    )
    parts = [source]
    for path, entries in summary["paths"].items():
        kind = "in domain" if results["paths"][path]["in_domain"] else "out of domain"
        models = {name: entry for name, entry in entries.items() if name != "oracle"}
        # the whole profile: one image may agree by chance
        fixed = min(models, key=lambda name: models[name]["profile_rmse_meV"])
        text = (
            f"{path} ({kind}, {results['paths'][path]['n_atoms']} atoms): oracle "
            f"{entries['oracle']['fixed_eV']:.2f} eV on the fixed path; {fixed} has the nearest profile (RMSE "
            f"{_told(models[fixed], 'profile_rmse_meV', '.0f')} meV, barrier "
            f"{_told(models[fixed], 'fixed_error_eV', '+.2f')} eV)"
        )
        if entries["oracle"]["converged"] == 1.0:
            own = {name: entry for name, entry in models.items() if entry["converged"] == 1.0}
            text += f"; self-consistent {entries['oracle']['own_eV']:.2f} eV"
            if own:
                best = min(own, key=lambda name: abs(own[name]["own_error_eV"]))
                text += f", nearest is {best} ({own[best]['own_error_eV']:+.2f} eV)"
        parts.append(text + ".")
    bands, climbed = _of_bands(summary, "converged"), _of_bands(summary, "climbed")
    if unfinished := sum(part < 1.0 for part in bands):
        parts.append(
            f"{unfinished} of {len(bands)} bands are NOT converged within the steps allowed: their self-consistent "
            "barriers are estimates and are not ranked."
        )
    if between := sum(part < 1.0 for part in climbed):
        parts.append(
            f"In {between} of {len(climbed)} bands no image climbed to the saddle point: their barriers are "
            "interpolated between images."
        )
    seeds = max(entry["n_seeds"] for entry in summary["crystal"].values())
    parts.append(
        f"Fine-tunes: mean ± standard deviation over {seeds} seeds."
        if seeds > 1
        else "One seed: differences between fine-tunes may be chance."
    )
    return " ".join(parts)


def _of_bands(summary: Mapping[str, Any], key: str) -> list[float]:
    """A number of every band that was relaxed."""
    values = [entry[key] for entries in summary["paths"].values() for entry in entries.values()]
    return [value for value in values if value is not None]


def _told(entry: Mapping[str, Any], key: str, digits: str) -> str:
    std = entry.get(f"{key}_std")
    return f"{entry[key]:{digits}}" + ("" if std is None else f" ± {std:{digits.removeprefix('+')}}")


def outcome(results: Mapping[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    summary = results["summary"]
    sliding = figures.sliding(results)
    content: dict[str, Illustration | Table] = {
        "profiles": Illustration(figures.fixed_profiles(results), _FIXED, "Energy along the published images"),
        "table": Table(COLUMNS, rows_of(summary), _TABLE),
        "barriers": Illustration(figures.barriers(summary), _OWN, "Barriers of the models' own paths"),
    }
    if sliding is not None:
        content["sliding"] = Illustration(sliding, _SLIDING, "Sliding one quintuple layer over the next")
    content |= {"crystal": _crystal_table(summary), "latent": _latent_table(results["latent"])}
    path, first = next(iter(summary["paths"].items()))
    n = len(results["paths"][path]["candidate_eV"])
    start, tuned = Path(results["settings"]["model"]).name, "fine-tuned, several T"
    return Outcome(
        verdict=verdict(results, summary),
        answer=_answer(first.get(start), first.get(tuned)),
        numbers={
            f"profile RMSE in domain, {name}": Number(entry["profile_rmse_meV"], "meV", n, entry["n_seeds"])
            for name, entry in first.items()
            if name != "oracle"
        },
        brief=[
            BriefTable(BRIEF_COLUMNS, brief_rows(entries), f"{path}: barriers, and distance from the oracle")
            for path, entries in summary["paths"].items()
        ],
        title="S2: Cr migration in Sb2Te3",
        content=content,
        alarm=any(e["converged"] == 0.0 for rows in summary["paths"].values() for e in rows.values()),
    )


def _answer(start: Mapping[str, Any] | None, tuned: Mapping[str, Any] | None) -> str:
    """Return whether fine-tuning brings the profile of its own path nearer, beyond the spread over seeds."""
    if start is None or tuned is None or "profile_rmse_meV_std" not in tuned:
        return "not decided"
    gain, std = start["profile_rmse_meV"] - tuned["profile_rmse_meV"], tuned["profile_rmse_meV_std"]
    return "not decided" if abs(gain) < 2.0 * std else "supported" if gain > 0.0 else "contradicted"


def _crystal_table(summary: Mapping[str, Any]) -> Table:
    rows = [[model, *(spread(entry, key) for key in _CRYSTAL)] for model, entry in summary["crystal"].items()]
    return Table(
        ("model", *_CRYSTAL.values()),
        rows,
        "Sb2Te3 without Cr: lattice relaxed by each model, highest relaxed sliding energy along two vectors, elastic "
        "constants with fractional coordinates held fixed (clamped). No universal model here corrects for dispersion.",
    )


def _latent_table(latent: Mapping[str, Any]) -> Table:
    columns = ("model", "CKA", "all: original", "all: standardised", "all: centred", "Cr: original", "Cr: standardised")
    rows = []
    for arm, seeds in latent["pairs"].items():
        numbers = [
            {
                "cka": pair["cka"],
                **{f"all {space}": value for space, value in pair["all atoms"].items()},
                **{f"Cr {space}": value for space, value in pair["Cr"].items()},
            }
            for pair in seeds
        ]
        entry = _over_seeds(numbers)
        rows.append([arm, *(spread(entry, key) for key in numbers[0] if key != "Cr centred")])
    return Table(
        columns,
        rows,
        f"Last-layer features of the same {latent['n_atoms']} atoms against {latent['reference']}: linear CKA (1: same "
        "geometry), and silhouettes with the model as class (1: apart, 0: overlapping), in the original space, with "
        "standardised channels, and after removing each model's mean (0 there: only a shift separates the models).",
    )


_FIXED = (
    "Energies each model gives the published images as they are, relative to the first one. Crosses: energies of the "
    "publication, whose images are not converged (forces of 0.1 to 0.6 eV/Å, Gamma point only in the small cell, no "
    "spin): for orientation, not as truth. Fine-tunes: mean over seeds; the shade is their standard deviation."
)
_OWN = (
    "Highest energy of the band each model relaxed for itself, above its first image (ends relaxed): of the climbing "
    "image, or where none climbed of the cubics between images. "
    "Bars are means over seeds; hatched ones are not converged. The 61-atom path is in domain, 81-atom paths are not."
)
_SLIDING = (
    "Relaxed energy of sliding everything above one van der Waals gap along two vectors, in each model's own lattice; "
    "a + 2b passes the special stackings. Fine-tunes: first seed; all of them are in the table."
)
_TABLE = (
    "Barriers, and their distance from the oracle's (error, eV); profile error over all images but the first; force "
    "error on the images. Fixed: on the published images. Own: on the model's own relaxed band (quick: first seed), "
    "with an error where it and the oracle's are converged; interpolated where no image climbed. ± is the standard "
    "deviation over seeds."
)
