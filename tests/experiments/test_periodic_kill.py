"""kill -9 four times on the way of a whole experiment, then the same command: nothing is lost, nothing differs.

``campaign/test_kills_everywhere.py`` kills the loop itself at every change of a file.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

SIZES = [
    "--rounds=2",
    "--labels-per-round=2",
    "--steps=10",
    "--train-steps=40",
    "--own-frames=2",
    "--test-frames=2",
    "--workers=1",
]


def start(folder, cache):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-m", "experiments.periodic", "--out", str(folder), *SIZES]
    # a session of its own, so that the labelling processes die with it
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def kill_when(process, happened):
    while process.poll() is None:
        if happened():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.002)
    pytest.fail("the run ended before the moment came")


def keys(database):
    """Keys of all successful labels in a store."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            rows = connection.execute("select key, value from text_key_values").fetchall()
        except sqlite3.OperationalError:
            return []
    return [value for _, value in rows if str(value).startswith("sha256-")]


def all_keys(folder):
    """Store by store."""
    return {path.relative_to(folder): sorted(keys(path)) for path in folder.rglob("*.db")}


def stages(history):
    return [json.loads(line)["stage"] for line in history.read_text().splitlines()] if history.exists() else []


@pytest.mark.slow
def test_killed_experiments_end_with_the_same_bits(tmp_path):
    cache = tmp_path / "cache"
    assert start(tmp_path / "straight", cache).wait() == 0
    folder = tmp_path / "killed"
    # none that passes: a moment between two looks at the folder would be missed
    moments = {
        "labelling": lambda: len(keys(folder / "naive" / "labels.db")) >= 3,
        "training": lambda: "train" in stages(folder / "naive" / "history.jsonl"),
        "after a round": lambda: (folder / "periodic" / "model_1").exists(),
        "testing": lambda: len(keys(folder / "own" / "zero-shot.db")) >= 1,
    }
    for happened in moments.values():
        kill_when(start(folder, cache), happened)
    assert start(folder, cache).wait() == 0

    expected, found = (
        {path.relative_to(top): load_file(path) for path in sorted(top.rglob("params.safetensors"))}
        for top in (tmp_path / "straight", folder)
    )
    assert len(expected) == 7  # four after rounds, and the arms' last ones
    assert expected.keys() == found.keys()
    for path, parameters in expected.items():
        for name, array in parameters.items():
            np.testing.assert_array_equal(found[path][name], array, err_msg=f"{path}: {name}")
    labels = all_keys(folder)
    assert len(labels) == 7
    assert all(len(set(found)) == len(found) > 0 for found in labels.values())
    assert labels == all_keys(tmp_path / "straight")
    errors = [json.loads((top / "results.json").read_text())["errors"] for top in (tmp_path / "straight", folder)]
    assert errors[0] == errors[1]
