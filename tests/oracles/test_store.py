"""The label store: exact, append-only, readable by ASE, and unharmed by a kill or a stale lock."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import ase.db
import numpy as np
import pytest

from mlipjax.oracles import LabelStore, label_key
from mlipjax.system import Labels, System


def structure(seed=0, n=3, pbc=True):
    rng = np.random.default_rng(seed)
    return System(rng.normal(size=(n, 3)), np.full(n, 8), rng.normal(size=(3, 3)) + 5 * np.eye(3), (pbc,) * 3)


def some_labels(seed=0, n=3, stress=True):
    rng = np.random.default_rng(100 + seed)
    tensor = rng.normal(size=(3, 3))
    return Labels.create(n, rng.normal() * 1e5, rng.normal(size=(n, 3)), tensor + tensor.T if stress else None)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def test_labels_come_back_bit_for_bit_after_reopening(tmp_path):
    store = LabelStore(tmp_path / "run" / "labels.db")
    for seed, stress in ((0, True), (1, False)):
        system, labels = structure(seed), some_labels(seed, stress=stress)
        assert same(store.add(label_key(system, "x"), system, labels, oracle="x"), labels)
    again = LabelStore(tmp_path / "run" / "labels.db")
    assert len(again) == 2
    assert same(again.get(label_key(structure(1), "x")), some_labels(1, stress=False))
    (first, labels), _ = again.systems()
    np.testing.assert_array_equal(first.positions, structure(0).positions)
    assert same(labels, some_labels(0))
    assert again.get(label_key(structure(2), "x")) is None


def test_ase_reads_the_store(tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    system, labels = structure(), some_labels()
    store.add(label_key(system, "x"), system, labels, oracle="x", seconds=1.5)
    row = next(ase.db.connect(tmp_path / "labels.db").select(status="done", oracle="x"))
    assert row.energy == float(labels.energy)
    np.testing.assert_array_equal(row.toatoms().get_stress(voigt=False), labels.stress)


def test_every_bit_of_structure_and_oracle_counts_in_the_key():
    system = structure()
    moved = system.replace(positions=np.nextafter(system.positions, np.inf))
    keys = {
        label_key(system, "x"),
        label_key(system, "y"),
        label_key(moved, "x"),
        label_key(system.replace(cell=system.cell * (1 + 1e-15)), "x"),
        label_key(system.replace(pbc=(True, True, False)), "x"),
        label_key(system.replace(atomic_numbers=np.array([8, 8, 1])), "x"),
    }
    assert len(keys) == 6
    zero, minus_zero = (system.replace(cell=np.full((3, 3), value)) for value in (0.0, -0.0))
    assert label_key(zero, "x") == label_key(minus_zero, "x")


def test_a_label_is_never_overwritten(tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    system = structure()
    store.add(label_key(system, "x"), system, some_labels(0), oracle="x")
    with pytest.raises(ValueError, match="already holds"):
        store.add(label_key(system, "x"), system, some_labels(1), oracle="x")
    assert same(store.get(label_key(system, "x")), some_labels(0))


def test_failures_are_kept_until_forgotten(tmp_path):
    path, system = tmp_path / "labels.db", structure()
    key = label_key(system, "x")
    store = LabelStore(path)
    store.add_failure(key, system, "first", oracle="x")
    store.add_failure(key, system, "1234", oracle="x")  # text that looks like a number is still text
    assert LabelStore(path).failures(key) == store.failures(key)
    assert (store.failures(key).count, store.failures(key).last_reason) == (2, "1234")
    assert key not in store
    assert store.forget_failures() == 2
    assert LabelStore(path).failures(key) is None


def test_a_file_that_is_no_store_is_refused(tmp_path):
    path = tmp_path / "labels.db"
    path.write_text("hello " * 1000)
    with pytest.raises(ValueError, match="not a label store"):
        LabelStore(path)


def test_stale_lock_file_does_not_block(tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    (tmp_path / "labels.db.lock").touch()
    system = structure()
    store.add(label_key(system, "x"), system, some_labels(), oracle="x")
    assert len(LabelStore(tmp_path / "labels.db")) == 1


def test_kill_while_writing_loses_no_committed_label(tmp_path):
    code = """
        import sys
        from test_store import LabelStore, label_key, some_labels, structure
        store = LabelStore(sys.argv[1])
        for seed in range(100000):
            system = structure(seed, n=40)
            store.add(label_key(system, "x"), system, some_labels(seed, n=40), oracle="x")
            print(seed, flush=True)
    """
    path = tmp_path / "labels.db"
    here = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        announced = [int(process.stdout.readline()) for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        announced += [int(line) for line in process.stdout]
    store = LabelStore(path)
    assert len(store) in (len(announced), len(announced) + 1)
    for seed in announced:
        assert same(store.get(label_key(structure(seed, n=40), "x")), some_labels(seed, n=40))
    extra = structure(-1 % 2**32)
    store.add(label_key(extra, "x"), extra, some_labels(), oracle="x")
