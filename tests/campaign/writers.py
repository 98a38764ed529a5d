"""Everything of this package that writes files, as code to be ended anywhere and done again.

``setup``, ``write`` and ``check`` are Python for ``kills.at_every_change``; ``FOLDER`` is where they write, and
``EXPECTED`` holds what an undisturbed run wrote. A check does the work again, as a user would, and compares bit by bit.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Writer:
    """A way to write files.

    Attributes:
        name: of it.
        setup, write, check: see the module.
    """

    name: str
    setup: str
    write: str
    check: str


_COMMON = """
import contextlib, io, sys
import numpy as np
sys.path[:0] = [TESTS]
from mlipjax.system import Labels, System
from mlipjax.data import Dataset, Example

def system(seed):
    rng = np.random.default_rng(seed)
    return System(rng.normal(size=(3, 3)), np.array([1, 8, 1], np.int32), 5.0 * np.eye(3), (True,) * 3)

def labels(seed):
    rng = np.random.default_rng(seed)
    return Labels.create(3, rng.normal(), rng.normal(size=(3, 3)), np.diag(rng.normal(size=3)))

def same(first, second):
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in ("energy", "forces", "stress"))

def command(*arguments):
    from mlipjax.cli.main import main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    if code:
        raise OSError(err.getvalue().strip().splitlines()[-1])

def equal_files(*names):
    for name in names:
        assert (FOLDER / name).read_bytes() == (EXPECTED / name).read_bytes(), f"{name} differs"
"""

_LABEL_STORE = Writer(
    "label store",
    _COMMON
    + """
from mlipjax.oracles import Labeller, LabelStore, label_key
from mlipjax.oracles.workers import SerialExecutor

class Counting:
    jittable, name, identity, calls = False, "counting", "counting", 0
    def label(self, system):
        self.calls += 1
        if self.calls == 2 and len(system.positions) == 3 and FAIL:
            raise ValueError("no convergence")
        seed = next(s for s in range(4) if np.array_equal(SYSTEMS[s].positions, system.positions))
        return labels(seed)

FAIL = True
SYSTEMS = [system(seed) for seed in range(4)]
def label():
    oracle = Counting()
    labeller = Labeller(oracle, FOLDER / "labels.db", executor=SerialExecutor())
    return labeller, labeller.label(SYSTEMS)
""",
    "label()",
    """
store = LabelStore(FOLDER / "labels.db")
done = [label_key(s, "counting") in store for s in SYSTEMS]
for seed, known in enumerate(done):
    assert not known or same(store.get(label_key(SYSTEMS[seed], "counting")), labels(seed)), "a label has changed"
FAIL = False
labeller, found = label()
assert labeller.counts.computed == 4 - sum(done), "a label was computed again"
assert labeller.counts.reused == sum(done)
assert all(same(result, labels(seed)) for seed, result in enumerate(found))
assert len(LabelStore(FOLDER / "labels.db")) == 4
""",
)

_LABELLED_STORE = Writer(
    "labelled store",
    _COMMON
    + """
from mlipjax.data import read_dataset, write_store
DATA = Dataset.from_examples([Example(system(s), labels(s), {"run": s, "a": np.arange(3)}) for s in range(4)])
""",
    "write_store(FOLDER / 'store', DATA)",
    """
if not (FOLDER / "store").exists():
    write_store(FOLDER / "store", DATA)
found = read_dataset(FOLDER / "store")
assert len(found) == 4
assert all(same(a, b) for a, b in zip(found.labels, DATA.labels, strict=True))
# a lock that its process left behind locks nothing
assert {p.name for p in FOLDER.iterdir()} - {".store.lock"} == {"store"}, "something is left behind"
""",
)

_MODEL = Writer(
    "model folder",
    _COMMON
    + """
from mlipjax.models.storage import read_model, write_model
OLD = ({"a": 1}, {"w": np.zeros(7, np.float32)})
NEW = ({"a": 2}, {"w": np.ones(900, np.float32)})
def same_model(found, expected):
    return found[0] == expected[0] and np.array_equal(found[1]["w"], expected[1]["w"])
""",
    "write_model(FOLDER / 'm', *OLD); write_model(FOLDER / 'm', *NEW)",
    """
from mlipjax.models.storage import is_model_folder
if is_model_folder(FOLDER / "m"):
    found = read_model(FOLDER / "m")
    assert same_model(found, OLD) or same_model(found, NEW), "neither the old model nor the new one"
write_model(FOLDER / "m", *NEW)
assert same_model(read_model(FOLDER / "m"), NEW)
""",
)

_FILES = Writer(
    "single files",
    _COMMON + "from mlipjax.files import write_atomic\n",
    "write_atomic(FOLDER / 'a' / 'f', b'old' * 9000); write_atomic(FOLDER / 'a' / 'f', b'new')",
    """
path = FOLDER / "a" / "f"
assert not path.exists() or path.read_bytes() in (b"old" * 9000, b"new")
write_atomic(path, b"new")
assert [p.name for p in path.parent.iterdir()] == ["f"], "something is left behind"
""",
)

_TRAJECTORY = Writer(
    "trajectory",
    _COMMON + "from mlipjax.data import TrajectoryWriter, read_atoms\n",
    """
with TrajectoryWriter(FOLDER / "t.extxyz") as writer:
    for seed in range(5):
        writer.write(system(seed), info={"step": seed})
    writer.sync()
""",
    """
path = FOLDER / "t.extxyz"
if path.exists() and path.stat().st_size:
    kept = len(read_atoms(path))
with TrajectoryWriter(path) as writer:
    for seed in range(writer.n_frames, 5):
        writer.write(system(seed), info={"step": seed})
frames = read_atoms(path)
assert [a.info["step"] for a in frames] == list(range(5))
assert all(np.array_equal(a.positions, system(s).positions) for s, a in enumerate(frames))
""",
)

_MD = Writer(
    "molecular dynamics",
    _COMMON
    + """
from campaign.hostile_stores import md_command
def simulate(folder):
    arguments = list(md_command(GOOD, folder / "md.extxyz"))
    arguments[arguments.index("--steps") + 1] = "8"
    command(*arguments)
""",
    "simulate(FOLDER)",
    'simulate(FOLDER); equal_files("md.extxyz")',
)

_FINETUNE = Writer(
    "fine-tune",
    _COMMON
    + """
def train(folder):
    data = ["--train", GOOD / "crystals.extxyz", "--valid-fraction", 0.3, "--anchor", "none"]
    length = ["--epochs", 2, "--batch-size", 2, "--snapshots", 2]
    command("finetune", "--model", GOOD / "model", *data, *length, "--out", folder / "run")
""",
    "train(FOLDER)",
    'train(FOLDER); equal_files("run/params.safetensors", "run/config.json")',
)

_MONITOR = Writer(
    "monitor",
    _COMMON
    + """
def fit(folder):
    command("monitor", "--model", GOOD / "model", "--reference", GOOD / "reference.extxyz", "--data",
            GOOD / "crystals.extxyz", "--level", 0.2, "--components", 2, "--out", folder / "monitor")
""",
    "fit(FOLDER)",
    'fit(FOLDER); equal_files("monitor/monitor.npz")',
)

_LOOP = Writer(
    "periodic loop",
    _COMMON
    + """
import jax
jax.config.update("jax_enable_x64", True)
from finetuning.loop_case import case, start
from mlipjax.finetuning.host import HostLoop
from mlipjax.oracles import Labeller, LabelStore

def loop(folder):
    setup, teacher, params, controls = case()
    with Labeller(teacher, folder / "labels.db") as labeller:
        result = HostLoop(setup, labeller, controls, folder).run(start(setup, params, controls), 2)
    state = result.state
    kept = state.train.params, [system.buffer for system in state.systems]
    return labeller, [np.asarray(leaf) for leaf in jax.tree.leaves(kept)]
""",
    """
_, found = loop(FOLDER)
np.savez(FOLDER / "result.npz", *found)
""",
    """
done = len(LabelStore(FOLDER / "labels.db")) if (FOLDER / "labels.db").exists() else 0
labeller, found = loop(FOLDER)
assert labeller.counts.computed <= 8 - done, "a label was computed again"
assert len(LabelStore(FOLDER / "labels.db")) == 8
with np.load(EXPECTED / "result.npz") as expected:
    assert all(np.array_equal(a, expected[f"arr_{i}"]) for i, a in enumerate(found)), "other numbers"
""",
)

_CONVERT = Writer(
    "converted files",
    _COMMON
    + """
from mlipjax.data import read_dataset
NAMES = ("a.extxyz", "a.extxyz.gz", "a.db", "a.h5")
def convert(folder):
    for name in NAMES:
        if not (folder / name).exists():
            command("convert", "--data", f"{GOOD / 'good.extxyz'}@:2", "--out", folder / name)
""",
    "convert(FOLDER)",
    """
convert(FOLDER)
expected = read_dataset(f"{GOOD / 'good.extxyz'}@:2")
for name in NAMES:
    found = read_dataset(FOLDER / name)
    assert len(found) == len(expected), f"{name} is not whole"
    assert all(same(a, b) for a, b in zip(found.labels, expected.labels, strict=True)), f"{name} has other labels"
""",
)

_PHONOPY = Writer(
    "phonopy file",
    _COMMON
    + """
import ase.io
def phonons(folder):
    arguments = ["--structure", GOOD / "crystal.extxyz", "--repeat", 2, 2, 2, "--phonopy", folder / "phonopy.yaml"]
    command("probe", "phonons", "--model", GOOD / "model", *arguments)
""",
    "phonons(FOLDER)",
    """
path = FOLDER / "phonopy.yaml"
assert not path.exists() or path.read_bytes() == (EXPECTED / "phonopy.yaml").read_bytes(), "not whole"
phonons(FOLDER)
equal_files("phonopy.yaml")
""",
)

_LOGS = Writer(
    "logs of training",
    _COMMON
    + """
import csv
from verbs.test_logged import scalars
from mlipjax.verbs.logged import CsvTracker, TensorboardTracker
LINES = [{"step": 4 * k, "epoch": k, "train_loss": 1.0 / k} for k in range(1, 5)]
def log(folder, first):
    trackers = [CsvTracker(folder), TensorboardTracker(folder)]
    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
        for n in range(first, 5):
            for tracker in trackers:
                tracker.write(LINES[:n])
""",
    "log(FOLDER, 1)",
    """
log(FOLDER, 3)
with open(FOLDER / "metrics.csv", newline="") as file:
    assert [int(row["step"]) for row in csv.DictReader(file)] == [4, 8, 12, 16]
found = scalars(FOLDER / "tensorboard")
assert {key: round(value, 5) for key, value in found.items() if key[0] == "train_loss"} == {
    ("train_loss", line["step"]): round(line["train_loss"], 5) for line in LINES
}
""",
)

WRITERS = (
    _LABEL_STORE,
    _LABELLED_STORE,
    _MODEL,
    _FILES,
    _TRAJECTORY,
    _MD,
    _FINETUNE,
    _MONITOR,
    _LOOP,
    _CONVERT,
    _PHONOPY,
    _LOGS,
)
