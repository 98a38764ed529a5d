"""kill -9 while labels are under way behind MD and training: no label is computed twice, and no frame is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import atoms, molecule, potential
from safetensors.numpy import load_file

from mlipjax.models import save

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

SCRIPT = """
    import sys
    import mlipjax
    if __name__ == "__main__":
        folder, out, later = sys.argv[1:]
        result = mlipjax.periodic(
            f"{folder}/model", [f"{folder}/box.extxyz", f"{folder}/molecule.extxyz"], out=out, rounds=3,
            oracle="ase:recorded_calculators:recorded_softly", executor="local:1", asynchronous=later == "later",
            labels_per_round=2, steps=4, train_steps=3, learning_rate=1e-4, e0s="estimate", dtype="float64",
        )
        print([row["labels"] for row in result.report["rounds"]], len(result.frames))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    student = potential()
    save(folder / "model", student, student.init(jax.random.key(0), jnp.float64))
    atoms().write(folder / "box.extxyz")
    molecule().write(folder / "molecule.extxyz")
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    return folder


def begin(given, out, mode, log, pause="0.4"):
    log.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "oracles")]),
        "JAX_COMPILATION_CACHE_DIR": str(given / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "MLIPJAX_TEST_LOG": str(log),
        "MLIPJAX_TEST_PAUSE": pause,
    }
    command = [sys.executable, str(given / "script.py"), str(given), str(out), mode]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def labels_in(out):
    """Labels that a store holds, and structures they are of."""
    try:
        with sqlite3.connect(f"file:{out / 'labels.db'}?mode=ro", uri=True) as connection:
            rows = connection.execute("select value from text_key_values where key = 'label_key'").fetchall()
    except sqlite3.OperationalError:
        return 0, 0
    return len(rows), len(set(rows))


def ended(log):
    return len(list(log.glob("end*")))


@pytest.mark.parametrize("mode", ["exact", "later"])
def test_kill_9_with_labels_in_flight(given, tmp_path, mode):
    out, log, lost = tmp_path / "run", tmp_path / "log", 0
    for wanted in (3, 7):
        process = begin(given, out, mode, log)
        while labels_in(out)[0] < wanted:
            assert process.poll() is None, "the run ended before the moment came"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.0)  # its worker notices
        lost += ended(log) - labels_in(out)[0] - lost
    process = begin(given, out, mode, log)
    said = process.communicate()[0]
    assert process.returncode == 0
    assert said.strip().endswith("[4, 4, 4] 12")
    assert labels_in(out) == (12, 12)
    # what had ended when the kill came and was not committed yet: one for each kill at most
    assert ended(log) == 12 + lost
    assert lost <= 2
    if mode == "exact":
        whole = tmp_path / "whole"
        process = begin(given, whole, mode, log, pause="0")
        process.communicate()
        killed, other = (load_file(folder / "model/params.safetensors") for folder in (out, whole))
        assert killed.keys() == other.keys()
        for name, value in killed.items():
            np.testing.assert_array_equal(value, other[name])
