"""``mlipjax convert``: any model that can be loaded, as a folder of mlipjax's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from mlipjax.cli.output import write_json
from mlipjax.models import load, save
from mlipjax.models.storage import is_model_folder
from mlipjax.tree import flatten_paths


@dataclasses.dataclass(frozen=True)
class Convert:
    """Save a model as a folder with config.json and params.safetensors, which other programs can read.

    Attributes:
        model: name, .nqx file or saved folder.
        out: folder to write; it must not hold a model yet.
        json: also write what was converted to this file.
    """

    model: str
    out: Path
    json: Path | None = None


def run(command: Convert) -> None:
    """Load and save; parameters keep their bits.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: if the model cannot be loaded, or the folder is taken.
    """
    if is_model_folder(command.out):
        raise ValueError(f"{command.out} already holds a model; choose another folder.")
    potential, params = load(command.model)
    save(command.out, potential, params)
    n_parameters = sum(leaf.size for leaf in flatten_paths(params).values())
    Console().print(
        f"{command.out}: {n_parameters} parameters, {len(potential.species)} elements, cutoff {potential.cutoff} Å, "
        f"heads {', '.join(potential.heads)}",
        highlight=False,
        soft_wrap=True,
    )
    write_json(
        command.json,
        {
            "model": command.model,
            "out": command.out,
            "n_parameters": n_parameters,
            "species": potential.species,
            "cutoff_A": potential.cutoff,
            "heads": potential.heads,
        },
    )
