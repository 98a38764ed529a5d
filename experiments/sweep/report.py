"""Heat maps, drift against error, table and verdict of ``experiments.sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.sweep.drift import DRIFTS
from mlipjax.report import Illustration, Table
from mlipjax.report.style import WIDTH, letter_panels, new_figure, styled

_ERROR = "force_rmse_meV_per_A"
_DRIFT_LABELS = {
    "one_minus_cka": "1 − CKA",
    "one_minus_cka_within": "1 − CKA within classes",
    "wasserstein": "1-Wasserstein per channel,\nstandardised",
}
COLUMNS = (
    "learning rate", "decay", "frozen", "seed", "last training loss", "F RMSE id", "low", "high", "F RMSE ood", "low",
    "high", "F MAE id", "F MAE ood (meV/Å)", "E std id", "E std ood", "E RMSE id", "E RMSE ood (meV/atom)",
    *DRIFTS,
)  # fmt: skip
BRIEF_COLUMNS = ("learning rate", "decay", "frozen", "seeds", "F RMSE id", "F RMSE ood (meV/Å)", "E std ood (meV/atom)")


def groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[float, float, int], list[dict[str, Any]]]:
    """Runs that differ in their seed only, by learning rate, decay and frozen layers."""
    found: dict[tuple[float, float, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["learning_rate"], row["decay"], row["frozen"]), []).append(row)
    return found


def table_rows(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One line for each run."""
    return [
        [
            row["learning_rate"], row["decay"], row["frozen"], row["seed"], row["losses"][-1],
            *(x for test in ("id", "ood") for x in (row[test][_ERROR], *row[test]["confidence_95"][_ERROR])),
            *(row[test]["force_mae_meV_per_A"] for test in ("id", "ood")),
            *(row[test][f"energy_{kind}_meV_per_atom"] for kind in ("std", "rmse") for test in ("id", "ood")),
            *(row["early"][name] for name in DRIFTS),
        ]
        for row in rows
    ]  # fmt: skip


@styled
def heat_maps(rows: Sequence[dict[str, Any]]) -> Figure:
    """Mean force RMSE over seeds, in and out of domain: learning rate across, decay and frozen layers down."""
    found = groups(rows)
    rates = sorted({key[0] for key in found})
    lines = sorted({key[1:] for key in found}, key=lambda line: (line[1], -line[0]))
    figure = new_figure(height=0.34 * len(lines) + 1.3)
    axes = figure.subplots(1, 2, sharey=True)
    for panel, (test, title) in zip(axes, (("id", "in domain"), ("ood", "out of domain")), strict=True):
        values = np.array([[_mean(found.get((rate, *line), []), test) for rate in rates] for line in lines])
        _draw_heat(panel, values)
        panel.set_title(f"force RMSE {title} (meV/Å)")
        panel.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        panel.set_xlabel("learning rate")
    axes[0].set_yticks(range(len(lines)), [f"decay {decay:g}, {frozen} frozen" for decay, frozen in lines])
    letter_panels(axes)
    return figure


def _mean(rows: Sequence[dict[str, Any]], test: str) -> float:
    return float(np.mean([row[test][_ERROR] for row in rows])) if rows else np.nan


def _draw_heat(panel: Axes, values: np.ndarray) -> None:
    """Errors span decades when a rate is too high: colours are by logarithm, numbers are written out."""
    scale = np.log10(values)
    panel.imshow(scale, cmap="cividis", aspect="auto")
    middle = 0.5 * (np.nanmin(scale) + np.nanmax(scale))
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if scale[i, j] <= middle else "black"
            text = f"{value:.0f}" if value >= 100.0 else f"{value:.1f}"
            panel.text(j, i, text, ha="center", va="center", color=color, fontsize=7.5)
    panel.grid(visible=False)


@styled
def drift_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error out of domain at the end against drift after the first epoch, a point for each run."""
    rates = sorted({row["learning_rate"] for row in rows})
    colors = dict(zip(rates, _shades(len(rates)), strict=True))
    figure = new_figure(height=2.6, width=WIDTH)
    axes = figure.subplots(1, len(DRIFTS), sharey=True)
    for panel, name in zip(axes, DRIFTS, strict=True):
        for rate in rates:
            own = [row for row in rows if row["learning_rate"] == rate]
            x, y = [row["early"][name] for row in own], [row["ood"][_ERROR] for row in own]
            panel.plot(x, y, "o", color=colors[rate], markeredgecolor="#333333", markeredgewidth=0.3, label=f"{rate:g}")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(f"{_DRIFT_LABELS[name]}\nafter the first epoch")
    axes[0].set_ylabel("final force RMSE\nout of domain (meV/Å)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(rates), title="learning rate")
    letter_panels(axes)
    return figure


def _shades(n: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.1, 0.9, n)]


def verdict(results: dict[str, Any]) -> str:
    """Speed, the best setting, and whether early drift says anything, with n and intervals."""
    found = groups(results["rows"])
    n_seeds = len(next(iter(found.values())))
    sentences = [_speed_sentence(results)]
    best = {test: min(found, key=lambda group, test=test: _mean(found[group], test)) for test in ("id", "ood")}
    for test, words in (("id", "In"), ("ood", "Out of")):
        rate, decay, frozen = best[test]
        sentences.append(
            f"{words} domain (n = {results['before'][test]['n_frames']} frames) the force RMSE goes from "
            f"{results['before'][test][_ERROR]:.1f} to {_mean(found[best[test]], test):.1f} meV/Å at best, with "
            f"learning rate {rate:g}, decay {decay:g}, {frozen} frozen layer(s), mean of {n_seeds} seed(s)."
        )
    prediction = results["prediction"]
    for name in DRIFTS:
        plain = prediction[name]["ood_force_rmse"]["spearman"]
        within = prediction[name]["ood_force_rmse"]["spearman_within_rates"]
        sentences.append(
            f"Early {_DRIFT_LABELS[name].replace(chr(10), ' ')} against final error out of domain: Spearman "
            f"{_text(plain)}, beyond the learning rate {_text(within)}; against its ratio to the error in domain "
            f"{_text(prediction[name]['ood_over_id']['spearman'])}."
        )
    sentences.append(
        "A positive correlation means that early drift warns of a bad model, a negative one that runs which moved more "
        "had learnt more."
    )
    before = {test: results["before"][test][_ERROR] for test in ("id", "ood")}
    if before["ood"] <= before["id"]:
        sentences.append(
            "The frames called out of domain are no harder for the start model than those in domain: this says little "
            "about extrapolation."
        )
    sentences.append(
        f"{prediction['n_runs']} runs of {prediction['n_choices']} choices; intervals resample choices. The best of "
        "many settings on these test frames is an optimistic number: choose on frames that are not reported."
    )
    return " ".join(sentences)


def _speed_sentence(results: dict[str, Any]) -> str:
    speed, found = results["throughput"], speedup(results)
    start = f"{results['n_settings']} settings in one program, {results['width']} at a time."
    if found is None:
        return f"{start} Throughput was not measured."
    alone = speed["n_settings"] * speed["n_steps"] / speed["separate_seconds"]
    return (
        f"{start} {alone * found:.3g} steps per second against {alone:.3g} one after another with one compiled program "
        f"({found:.2f} times as fast; {speed['n_settings']} settings, {speed['n_steps']} steps, medians of five in "
        "turn)."
    )


def _text(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "not defined"
    limits = found["confidence_95"]
    return f"{found['value']:.2f}" + (f" [{limits[0]:.2f}, {limits[1]:.2f}]" if limits else " (no interval)")


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    rows, sizes, speed = results["rows"], results["sizes"], results["throughput"]
    n = f"{sizes['train']} training frames, {sizes['id']} and {sizes['ood']} test frames in and out of domain"
    timings = [["one after another", speed["separate_seconds"], speed["separate_compile_seconds"]]]
    timings += [[f"width {w}", seconds, speed["compile_seconds"][w]] for w, seconds in speed["seconds"].items()]
    content = {
        "heat_map": Illustration(
            heat_maps(rows),
            f"Force RMSE in meV/Å at the end, mean over seeds; {n}. Colours are by logarithm, each panel by itself.",
            "Errors over settings",
        ),
        "drift": Illustration(
            drift_figure(rows),
            f"Every run: drift of the last layer's features on the in-domain test frames after the first of "
            f"{results['settings']['epochs']} epochs, against the error out of domain at the end; {n}.",
            "Early drift and late error",
        ),
        "table": Table(COLUMNS, table_rows(rows), "Every run; 95 % intervals over frames, of the averaged weights."),
        "timings": Table(
            ["program", "seconds", "first call"],
            timings,
            f"Seconds for {speed['n_settings']} settings of {speed['n_steps']} steps, and of the first call.",
        ),
    }
    return Outcome(
        verdict=verdict(results),
        answer=_answer(results),
        numbers=_numbers(results),
        brief=[brief(BRIEF_COLUMNS, brief_rows(rows), "g", names=4)],
        title=f"Sweep: {results['n_settings']} fine-tunes of {results['settings']['model']}",
        content=content,
    )


def brief_rows(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One line for each choice, means over its seeds."""
    shown = (("id", _ERROR), ("ood", _ERROR), ("ood", "energy_std_meV_per_atom"))
    return [
        [*group, len(own), *(f"{np.mean([row[test][key] for row in own]):.1f}" for test, key in shown)]
        for group, own in groups(rows).items()
    ]


def csv(rows: Sequence[dict[str, Any]]) -> str:
    """The table of runs as comma-separated values."""
    header = [column.partition(" (")[0] for column in COLUMNS]
    return "\n".join(",".join(map(str, line)) for line in [header, *table_rows(rows)]) + "\n"


def speedup(results: dict[str, Any]) -> float | None:
    """Speed of one program over that of separate runs, where it was measured."""
    speed, width = results["throughput"], str(results["width"])
    return speed["separate_seconds"] / speed["seconds"][width] if width in speed["seconds"] else None


def _answer(results: dict[str, Any]) -> str:
    """Return whether one program is not slower than separate runs, within what timings are worth."""
    found = speedup(results)
    return "not decided" if found is None else "supported" if found > 0.95 else "contradicted"


def _numbers(results: dict[str, Any]) -> dict[str, Number]:
    found = groups(results["rows"])
    seeds = len(next(iter(found.values())))
    best = {test: min(_mean(rows, test) for rows in found.values()) for test in ("id", "ood")}
    before, drift = results["before"], results["prediction"]["wasserstein"]["ood_force_rmse"]["spearman"]
    return {
        "one program, times as fast": Number(speedup(results), "", results["throughput"]["n_settings"]),
        **{
            f"force RMSE {test}, best setting / before": Number(
                best[test] / before[test][_ERROR], "", before[test]["n_frames"], seeds
            )
            for test in best
        },
        "Spearman, early Wasserstein drift and final error": Number(drift["value"], "", drift["n"], seeds),
    }
