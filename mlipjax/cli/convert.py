"""``mlipjax convert``: any model, or labelled structures, in a format of mlipjax's own or of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.cli.options.common import LabelOptions
from mlipjax.cli.options.formats import Convert
from mlipjax.cli.output import make_console, write_json
from mlipjax.data import Example, read_dataset, read_examples, save_examples, write_store
from mlipjax.data.write import is_file_name
from mlipjax.locks import folder_alone
from mlipjax.models import load, save
from mlipjax.models.storage import is_model_folder
from mlipjax.tree import flatten_paths
from mlipjax.verbs.inputs import told_paths
from mlipjax.verbs.read import label_keys, naming_options


def run(command: Convert) -> None:
    """Convert and print."""
    if command.model is not None and not command.data:
        description, report = _convert_model(command.model, command.out)
    elif command.data and command.model is None:
        description, report = _convert_data(command.data, command.labels, command.out)
    else:
        raise ValueError("give either --model M or --data FILE.")
    make_console(quiet=command.quiet).print(f"{command.out}: {description}")
    write_json(command.json, {"model": command.model, "data": told_paths(command.data), "out": command.out, **report})


def _convert_model(model: str, out: Path) -> tuple[str, dict[str, Any]]:
    """Load and save; parameters keep their bits."""
    with folder_alone(out):
        if is_model_folder(out):
            raise ValueError(f"{out} already holds a model; choose another folder.")
        potential, params = load(model)
        save(out, potential, params)
    n_parameters = sum(leaf.size for leaf in flatten_paths(params).values())
    description = (
        f"{n_parameters} parameters, {len(potential.species)} elements, cutoff {potential.cutoff} Å, "
        f"heads {', '.join(potential.heads)}"
    )
    return description, {
        "n_parameters": n_parameters,
        "species": potential.species,
        "cutoff_A": potential.cutoff,
        "heads": potential.heads,
    }


def _convert_data(data: tuple[Path, ...], labels: LabelOptions, out: Path) -> tuple[str, dict[str, Any]]:
    """Read and write structure by structure; labels keep their bits. What is a format of its own is read back."""
    write = save_examples if is_file_name(out) else write_store
    if write is write_store and out.suffix:
        raise ValueError(
            f"{out}: files end in .extxyz, .db or .h5, and a folder of arrays has no ending; choose another name."
        )
    seen = _Seen()
    with naming_options():
        write(out, seen.count(read_examples(data, label_keys(**dataclasses.asdict(labels)))))
    if write is write_store:
        read_dataset(out, required=())
    found = ", ".join(f"{count} with {name}" for name, count in seen.n_labels.items())
    report = {"n_frames": seen.n_frames, "n_labels": seen.n_labels, "elements": sorted(seen.elements)}
    return f"{seen.n_frames} structures, {found}", report


class _Seen:
    """Counts structures that pass by."""

    def __init__(self) -> None:
        self.n_frames = 0
        self.n_labels = {"energy": 0, "forces": 0, "stress": 0}
        self.elements: set[int] = set()

    def count(self, examples: Iterator[Example]) -> Iterator[Example]:
        """Yield what comes."""
        for example in examples:
            self.n_frames += 1
            self.elements |= set(np.asarray(example.system.atomic_numbers).tolist())
            for name in self.n_labels:
                self.n_labels[name] += float(getattr(example.labels, f"{name}_weight")) > 0.0
            yield example
