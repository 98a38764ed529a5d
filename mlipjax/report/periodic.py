"""The report of one periodic fine-tune, as HTML and PNG: what each round's model did not know, and where it went.

It can be drawn at any time of a run, of what is done by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from mlipjax.report.curves import interactive_curves
from mlipjax.report.errors import ErrorCurve, error_against_labels
from mlipjax.report.html import Illustration, Interactive, Table, write_report
from mlipjax.report.structures import MOST_PICTURES, outstanding, pictures
from mlipjax.report.style import arm_styles, new_figure, rounded, styled
from mlipjax.report.trajectories import Trace, traces

_ERRORS = {
    "energy_mean": "energy_mean_meV_per_atom",
    "energy_std": "energy_std_meV_per_atom",
    "energy_rmse": "energy_rmse_meV_per_atom",
    "force_rmse": "force_rmse_meV_per_A",
}
_COLUMNS = (
    "round", "labels seen", "new labels", "failed", "energy: mean", "std", "RMSE (meV/atom)", "force RMSE (meV/Å)",
    "last loss", "alarms",
)  # fmt: skip
_MOST_TRACES = 6
"""Replicas that can be told apart in a figure."""


def write_periodic_report(
    folder: Path, report: Mapping[str, Any], history: Sequence[Mapping[str, Any]], frames: Sequence[Atoms] = ()
) -> None:
    """Write ``report.html`` and its figures into the folder of a periodic fine-tune.

    Args:
        folder: of the run.
        report: its ``results.json``.
        history: its records of pieces, as in ``history.jsonl``.
        frames: labelled ones, as in ``frames.extxyz``, if they are there yet.
    """
    settings, stages = report["settings"], {record["stage"] for record in history}
    many = sum(system["replicas"] for system in report["systems"]) > _MOST_TRACES
    replicas = f" The first {_MOST_TRACES} replicas are drawn." if many else ""
    figures = {
        "errors": (
            "What each round's model did not know yet",
            "Errors of the model that sampled a round's frames on their labels, before it was trained on them, against "
            "the labels it had seen. The model of the last round has seen all labels, so it has no point here.",
            errors_figure(report) if report["rounds"] else None,
        ),
        "trajectory": (
            "Where it went",
            "Temperature and potential energy along the trajectory; at a triangle the model was fine-tuned, and what "
            f"came of it drives on.{replicas}",
            trajectory_figure(report, history) if "sample" in stages else None,
        ),
        "loss": (
            "Training",
            "Loss of every optimiser step; each round starts a new fine-tune.",
            loss_figure(history) if "train" in stages else None,
        ),
    }
    content: list[Illustration | Interactive | Table] = []
    if report["rounds"]:
        content += [_table(report), _parts_table(report)]
    for name, (title, caption, figure) in figures.items():
        if figure is not None:
            content.append(Illustration(figure, caption, title, name))
    content += [*_loss_curve(history), *_frames_apart(report, history, frames)]
    content += [_next_steps(folder, report), _systems_table(report), *_preflight_tables(report)]
    content.append(Table(("setting", "value", "why"), report["strategy"], "Settings of the strategy, and why."))
    content.append(Table(("option", "value"), [[k, str(v)] for k, v in settings.items()], "All options."))
    write_report(
        folder / "report.html",
        title=f"Periodic fine-tune in {folder.resolve().name}",
        verdict=f"{report['verdict']['text']} Next: {report['verdict']['next']}",
        alarm=report["verdict"]["alarm"],
        content=content,
        versions=report["versions"],
    )


def errors_figure(report: Mapping[str, Any]) -> Figure:
    """Errors of every round's model on the frames it sampled, against the labels it had seen."""
    rows = report["rounds"]
    errors = {name: np.array([row[key] for row in rows], np.float64) for name, key in _ERRORS.items()}
    curve = ErrorCurve(labels=[row["labels_before"] for row in rows], **errors)
    return error_against_labels({"own frames": {"periodic": curve}}, x_label="labels seen")


def trajectory_figure(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Figure:
    """Temperature and potential energy of all systems' replicas over all rounds; energies from where a system began."""
    runs: dict[str, Trace] = {}
    systems = report["systems"]
    trained = {record["round"] for record in history if record["stage"] == "finish"}
    for index, system in enumerate(systems):
        samples = [record for record in history if record["stage"] == "sample" and record.get("system", 0) == index]
        for replica in range(system["replicas"] if samples else 0):
            kelvin, energy = (
                np.concatenate([record[key][replica] for record in samples])
                for key in ("temperature_K", "potential_energy_eV")
            )
            time = 1e-3 * system["timestep"] * np.arange(1, len(kelvin) + 1)
            # the model is the same for all replicas: one row of triangles
            marks = () if runs else 1e-3 * system["timestep"] * _ends(samples)[: len(trained)]
            # systems of other sizes and elements have other zeros
            energy = (energy - samples[0]["potential_energy_eV"][0][0]) / system["n_atoms"]
            runs[_run_name(systems, index, replica)] = Trace(time, kelvin, energy, marks)
    targets = {None if system["ensemble"] == "nve" else system["temperature"] for system in systems}
    shown = dict(list(runs.items())[:_MOST_TRACES])
    return traces(shown, target_temperature=targets.pop() if len(targets) == 1 else None)


def _ends(samples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Steps after which each round was over."""
    lengths: dict[int, int] = {}
    for record in samples:
        lengths[record["round"]] = lengths.get(record["round"], 0) + len(record["temperature_K"][0])
    return np.cumsum(list(lengths.values()))


def _run_name(systems: Sequence[Mapping[str, Any]], index: int, replica: int) -> str:
    parts = [f"system {index + 1}"] if len(systems) > 1 else []
    parts += [f"replica {replica}"] if systems[index]["replicas"] > 1 else []
    return ", ".join(parts) or "periodic"


def _losses(history: Sequence[Mapping[str, Any]]) -> dict[int, list[float]]:
    """Loss of every optimiser step, by round from 0."""
    losses: dict[int, list[float]] = {}
    for record in history:
        if record["stage"] == "train":
            losses.setdefault(record["round"], []).extend(record["loss"])
    return losses


def _loss_curve(history: Sequence[Mapping[str, Any]]) -> list[Interactive]:
    """The losses, to be pointed at."""
    losses = [loss for values in _losses(history).values() for loss in values]
    if not losses:
        return []
    caption = "The same losses: a value under the pointer, a range by the tools."
    panels = {"loss (dimensionless)": {"train": losses}}
    words = {"x_label": "optimiser step", "caption": caption, "title": "Training, to be pointed at"}
    curve = interactive_curves(np.arange(1, len(losses) + 1), panels, **words)
    return [] if curve is None else [curve]


@styled
def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss of every optimiser step, round after round."""
    style = arm_styles(["periodic"])["periodic"]
    figure = new_figure(height=2.2)
    panel = figure.subplots()
    done = 0
    for values in _losses(history).values():
        panel.plot(np.arange(done + 1, done + len(values) + 1), values, color=style.color, linewidth=0.9)
        done += len(values)
        panel.axvline(done + 0.5, color="#333333", linewidth=0.7, linestyle=(0, (3, 2)))
    panel.set_yscale("log")
    panel.margins(x=0.01)
    panel.set(xlabel="optimiser step", ylabel="loss (dimensionless)")
    return figure


class _Apart(NamedTuple):
    """A labelled frame: force error of the model that had not seen it (meV/Å), its worst atom, if by an alarm."""

    atoms: Atoms
    error: float
    worst: int
    by_alarm: bool

    @property
    def name(self) -> str:
        """Where it comes from, in words."""
        return f"round {self.atoms.info['round']}"


def _frames_apart(
    report: Mapping[str, Any], history: Sequence[Mapping[str, Any]], frames: Sequence[Atoms]
) -> list[Illustration | Interactive]:
    """Frames with the largest force errors, as pictures and to be turned, and those that were taken by an alarm."""
    found = _apart(report, history, frames)
    if not found:
        return []
    title = "Frames with the largest force errors"
    figure, viewer = outstanding(
        [one.atoms for one in found],
        [one.error for one in found],
        quantity="force error (meV/Å, rms over atoms)",
        title=title,
        marked=[one.worst for one in found],
        names=[one.name for one in found],
    )
    caption = (
        "Above each frame is the force error of the model that sampled it, before it was trained on it (meV/Å, root "
        "mean square over atoms); the atom with the largest error is drawn in magenta."
    )
    content = [Illustration(figure, caption, title, "largest_errors"), *viewer]
    if alarmed := [one for one in found if one.by_alarm]:
        shown = alarmed[:MOST_PICTURES]
        titles = [f"{one.name}: {rounded(one.error)}" for one in shown]
        figure = pictures([one.atoms for one in shown], titles, marked=[one.worst for one in shown])
        caption = f"The first {len(shown)} of {len(alarmed)} frames at which charts raised an alarm; marks as before."
        content.append(Illustration(figure, caption, "Frames with alarms", "alarms"))
    return content


def _apart(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]], frames: Sequence[Atoms]) -> list[_Apart]:
    """Facts about labelled frames; nothing of runs of earlier versions, which kept less."""
    known: dict[tuple[int, int], list[tuple[float, int, bool]]] = {}
    samples: dict[tuple[int, int], list[Sequence[int]]] = {}
    stops = report["settings"].get("on_alarm") in ("label", "rollback")  # else MD has gone on from the alarm
    for record in history:
        place = record["round"], record.get("system", 0)
        if record["stage"] == "sample":
            samples.setdefault(place, []).append(record.get("alarms", ()) if stops else ())
        elif record["stage"] == "label" and "worst_atom" in record:
            replicas = report["systems"][place[1]]["replicas"]
            rows = zip(record["frames"], record["force_rmse_eV_per_A"], record["worst_atom"], strict=True)
            known[place] = [
                (1000.0 * error, atom, number % replicas in samples[place][number // replicas])
                for number, error, atom in rows
            ]
    taken = {place: iter(rows) for place, rows in known.items()}
    found = []
    for atoms in frames:
        place = int(atoms.info["round"]) - 1, int(atoms.info["system"]) - 1
        row = next(taken.get(place, iter(())), None)
        if row is not None:
            found.append(_Apart(atoms, *row))
    return found


def _table(report: Mapping[str, Any]) -> Table:
    rows = []
    for row in report["rounds"]:
        errors = (_rounded(row[key]) for key in _ERRORS.values())
        counts = (row["round"], row["labels_before"], row["labels"], row["failed"])
        rows.append([*counts, *errors, row["loss"], row["alarms"]])
    shift = ""
    if report["settings"]["e0s"] == "estimate":
        taken = ", ".join(f"{system['energy_shift_eV']:.6g} eV" for system in report["systems"])
        shift = f" The energy zero is that of the first round's labels: {taken} were taken off."
        if len(report["systems"]) == 1:
            shift += " The mean error of that round is zero by construction."
    return Table(_COLUMNS, rows, f"Errors are model minus {report['oracle']}.{shift}")


def _systems_table(report: Mapping[str, Any]) -> Table:
    names = ("name", "formula", "ensemble", "temperature", "timestep", "replicas", "labels_per_round", "weight")
    rows = [[number, *(system[name] for name in names)] for number, system in enumerate(report["systems"], 1)]
    heads = "system", "structure", "formula", "ensemble", "K", "time step (fs)", "replicas", "labels a round", "weight"
    return Table(heads, rows, "What was simulated.")


def _preflight_tables(report: Mapping[str, Any]) -> list[Table]:
    """Tables of the facts before the first step."""
    known = report["preflight"]
    rows = [
        ["labels asked for", known["n_labels"]],
        ["parameters trained", f"{report['n_trained_parameters']} of {report['n_parameters']}"],
        ["labelled frames from before", known["n_given"]],
        ["replayed frames", known["n_replayed"]],
        *(["note", note] for note in known["notes"]),
        *(
            [f"seconds of one energy with forces, system {number}", f"{seconds:.3g}"]
            for number, seconds in enumerate(known["seconds"], 1)
        ),
        ["hours of MD and training, roughly, without labels", f"{known['hours']:.2g}"],
        ["memory for training (GB)", f"{1e-9 * (known['training_bytes'] or 0.0):.2g}"],
    ]
    if (before := known["before"]) is not None:
        rows += [[name, _rounded(before[name])] for name in _BEFORE if before.get(name) is not None]
    tables = [Table(("before the first step", ""), rows, "What was known then; errors are on the frames from before.")]
    if known["findings"]:
        found = [[finding["severity"], finding["message"], finding["remedy"]] for finding in known["findings"]]
        tables.append(Table(("", "the doctor", "what to do"), found, "In the frames from before."))
    return tables


_BEFORE = ("energy_mean_meV_per_atom", "energy_std_meV_per_atom", "force_rmse_meV_per_A")


def _parts_table(report: Mapping[str, Any]) -> Table:
    """Errors of every round by system and by element."""
    rows = []
    for row in report["rounds"]:
        parts = [(f"system {number}", part) for number, part in enumerate(row["systems"], 1)]
        for name, part in parts if len(parts) > 1 else ():
            rows.append([row["round"], name, *(_rounded(part[key]) for key in _ERRORS.values()), part["alarms"]])
        for element, part in row["elements"].items():
            rows.append([row["round"], element, None, None, None, _rounded(part["force_rmse_meV_per_A"]), None])
    heads = ("round", "of", "energy: mean", "std", "RMSE (meV/atom)", "force RMSE (meV/Å)", "alarms")
    return Table(heads, rows, "The same errors, by system and by element.")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3) + 0.0


def _next_steps(folder: Path, report: Mapping[str, Any]) -> Table:
    model, frames = folder / "model", folder / "frames.extxyz"
    rows = [
        ["errors on structures that had no part in this", f"mlipjax evaluate --model {model} --data TEST.extxyz"],
        ["simulate", f"mlipjax simulate --model {model} --structure S.cif --steps 10000 --out MD"],
        [
            "does it know where that went?",
            f"mlipjax monitor --model {model} --reference {frames} --data MD/trajectory.extxyz",
        ],
        ["train once more on all labels", f"mlipjax finetune --model MODEL --train {frames} --out DIR"],
    ]
    caption = f"The labels are in {folder / 'labels.db'} too (ase db), as {report['oracle']} gave them."
    return Table(("what to do next", "how"), rows, caption)
