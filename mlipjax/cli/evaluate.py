"""``mlipjax evaluate``: errors of a model on labelled structures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.display import element_table, error_table
from mlipjax.cli.output import write_json
from mlipjax.data import read_dataset
from mlipjax.models import load
from mlipjax.train import MAX_SLOTS, evaluate


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Compare a model's energies, forces and stresses with labels.

    Attributes:
        model: name, .nqx file or saved folder.
        data: labelled structures (extended xyz, ASE database).
        dtype: precision of the network.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; lower it if memory runs out.
        json: also write the report to this file.
    """

    model: str
    data: Path
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 8
    max_slots: int = MAX_SLOTS
    json: Path | None = None


def run(command: Evaluate) -> None:
    """Evaluate and print.

    Raises:
        ValueError, FileNotFoundError: if model or data cannot be used.
    """
    runtime.select_dtype(command.dtype)
    dataset = read_dataset(command.data, required=())
    if not any(dataset.count_labels().values()):
        raise ValueError(f"{command.data}: no structure has an energy, forces or a stress to compare with.")
    potential, params = load(command.model)
    report = evaluate(
        potential,
        params,
        dataset,
        dtype=command.dtype,
        batch_size=command.batch_size,
        max_slots=command.max_slots,
    )
    console = Console()
    console.print(error_table({command.data.name: report}), element_table(report))
    write_json(command.json, {**report, "model": command.model, "data": command.data})
