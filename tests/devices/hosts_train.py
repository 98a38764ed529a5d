"""Trains in every process of several, up to a step, from where a folder stands; ``test_hosts.py`` runs this file."""

import dataclasses
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import jax  # noqa: E402
import numpy as np  # noqa: E402

from mlipjax import hosts, tree  # noqa: E402

if __name__ == "__main__":
    steps, folder = int(sys.argv[1]), Path(sys.argv[2])
    jax.config.update("jax_enable_x64", True)
    if hosts.PROCESSES in os.environ:
        hosts.join()
    from train.multitask_case import training

    from mlipjax.train import train

    run = training("sum")
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, steps=steps))
    state, records = train(run, folder=folder / "run" if hosts.is_first() else None)
    assert len(jax.devices()) == 2 * jax.process_count()
    found = tree.flatten_paths(state.params) | {"losses": np.array([record["train_loss"] for record in records])}
    np.savez(folder / f"{steps}-{jax.process_count()}-{jax.process_index()}.npz", **found)
