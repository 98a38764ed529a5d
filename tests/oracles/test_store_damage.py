"""A label store that was killed at any change, filled its disk, or was edited by others."""

import errno
import sqlite3

import ase.db
import numpy as np
import pytest
from kills import at_every_change, failures

from mlipjax.oracles import BadLabelError, LabelStore, label_key
from mlipjax.system import Labels, System

SETUP = """
import ase.db.sqlite
import numpy as np
from mlipjax.oracles import LabelStore, label_key
from mlipjax.system import Labels, System

def structure(k):
    return System(np.arange(6.0).reshape(2, 3) + k, np.array([8, 1]), 5 * np.eye(3))

def add(store, k):
    store.add(label_key(structure(k), "x"), structure(k), Labels.create(2, k, np.ones((2, 3))), oracle="x")
"""

WRITE = """
store = LabelStore(FOLDER / "labels.db")
for k in range(2):
    add(store, k)
store.add_failure("a key", structure(9), "no convergence", oracle="x")
"""

CHECK = """
store = LabelStore(FOLDER / "labels.db")
keys = [label_key(structure(k), "x") for k in range(2)]
assert [key in store for key in keys] in ([False, False], [True, False], [True, True])
for k, key in enumerate(keys):
    if key not in store:
        add(store, k)
assert [float(LabelStore(FOLDER / "labels.db").get(key).energy) for key in keys] == [0.0, 1.0]
"""


@pytest.mark.parametrize(
    ("error", "every"),
    [(0, 11), pytest.param(0, 1, marks=pytest.mark.slow), (errno.ENOSPC, 37)],
    ids=["kill", "kill everywhere", "disk full"],
)
def test_a_store_is_never_a_dead_end(tmp_path, error, every):
    results = at_every_change(
        tmp_path / "run", setup=SETUP, write=WRITE, check=CHECK, error=error, every=every, timeout=1500.0
    )
    assert failures(results) == []
    # a full disk is an error of the operating system that names the store
    assert all("OSError" in result.error and "labels.db" in result.error for result in results if result.status == 1)


@pytest.mark.parametrize("n_statements", range(4))
def test_an_unfinished_store_of_an_earlier_version_is_finished(tmp_path, n_statements):
    from ase.db.sqlite import init_statements

    path = tmp_path / "labels.db"
    with sqlite3.connect(path) as connection:
        for statement in init_statements[:n_statements]:
            connection.execute(statement)
    connection.close()
    store = LabelStore(path)
    add(store)
    assert len(LabelStore(path)) == 1


def test_other_databases_are_left_alone(tmp_path):
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE visits (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is not a label store"):
        LabelStore(path)
    assert path.read_bytes() == before


def structure():
    return System(np.arange(6.0).reshape(2, 3), np.array([8, 1]), 5 * np.eye(3))


def add(store, **labels):
    key = label_key(structure(), "x")
    store.add(key, structure(), Labels.create(2, **{"energy": -1.0, "forces": np.ones((2, 3)), **labels}), oracle="x")
    return key


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("energy", -2.0, "it was edited"),
        ("energy", None, "it was edited"),
        ("positions", np.ones(6).tobytes(), "it was edited"),
        ("forces", np.full(6, 2.0).tobytes(), "it was edited"),
        ("forces", np.ones(3).tobytes(), r"forces: found shape \(1, 3\), expected \(2, 3\)"),
        ("energy", 1e300, "energy of 1e\\+300 eV"),
        ("stress", np.ones(3).tobytes(), r"stress: found shape \(3,\)"),
        ("forces", np.full(6, np.nan).tobytes(), "forces is not finite"),
        ("forces", np.ones(4).tobytes(), "is not a label store"),
    ],
)
def test_a_row_that_is_not_what_was_stored_is_named(tmp_path, column, value, message):
    path = tmp_path / "labels.db"
    add(LabelStore(path))
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE systems SET {column} = ?", [value])
    connection.close()
    with pytest.raises(ValueError, match=message) as error:
        LabelStore(path)
    assert str(path) in str(error.value)
    if isinstance(error.value, BadLabelError):
        assert "labels.db, row 1: " in str(error.value)
        assert f"ase db {path} id=1 --delete" in str(error.value)


def test_rows_without_a_digest_are_read_as_before(tmp_path):
    path = tmp_path / "labels.db"
    key = add(LabelStore(path))
    database = ase.db.connect(path)
    database.update(1, delete_keys=["digest"])
    assert float(LabelStore(path).get(key).energy) == -1.0


def test_a_label_that_is_none_is_not_stored(tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    with pytest.raises(BadLabelError, match=r"found shape \(1, 3\)"):
        add(store, forces=np.ones((1, 3)))
    assert len(store) == len(LabelStore(store.path)) == 0
