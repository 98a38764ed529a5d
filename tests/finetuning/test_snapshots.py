"""Models kept along a fine-tune: evenly, complete or absent, and the same after a kill."""

import itertools
import json

import jax
import numpy as np
import pytest
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import load, tree
from mlipjax.data.properties import label_property
from mlipjax.finetuning.properties import PropertyInput, finetune_property
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.finetuning.single import finetune
from mlipjax.finetuning.snapshots import run_models
from mlipjax.models import NequIPConfig, nequip
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings, PropertySettings

SIZES = (6,) * 9
SETTINGS = FinetuneSettings(
    strategy="lora", lora_rank=2, e0s="estimate", anchor="none", epochs=3, batch_size=2, learning_rate=0.02, snapshots=3
)


class Killed(Exception):
    pass


class KillAt(FinetuneListener):
    def __init__(self, step):
        self.last = step

    def step(self, state, info):
        if int(state.step) == self.last:
            raise Killed


@pytest.fixture(scope="module")
def model():
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", lmax=1, n_layers=1, radial_basis_size=4, radial_hidden=(8,))
    potential = nequip(config, np.array([-2.0, -31.0, -79.0]))
    return Model(potential, potential.init(jax.random.key(1)))


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "out"
    return folder, finetune(model, labelled_dataset(SIZES), settings=SETTINGS, out=folder)


def snapshots(folder):
    """Content of every file, by its path in the folder of snapshots."""
    root = folder / "snapshots"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, dict(tree.flatten_paths(a)), dict(tree.flatten_paths(b)))


def test_models_are_kept_evenly_from_before_the_first_step_to_the_last(model, straight):
    folder, result = straight
    models = run_models(folder)
    # three epochs of three steps
    assert [one.step for one in models[:-1]] == [0, 3, 6, 9]
    assert models[-1] == (3 * result.report["best_epoch"], folder, True)
    # adapters are merged: the model before the first step is the one that was given, save for its E0s
    potential, before = load(models[0].path)
    assert_equal(before, model[1])
    np.testing.assert_array_equal(potential.e0s, load(folder)[0].e0s)
    # with an epoch per snapshot, the model that was kept is one of them
    assert_equal(load(models[result.report["best_epoch"]].path)[1], load(folder)[1])
    kernels = [load(one.path)[1]["layer_0"]["linear_up"]["0e"] for one in models[:-1]]
    assert all(np.abs(a - b).max() > 0.0 for a, b in itertools.pairwise(kernels))


def test_a_killed_run_has_the_same_snapshots(model, straight, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(Killed):
        finetune(model, labelled_dataset(SIZES), settings=SETTINGS, out=folder, listener=KillAt(4))
    with pytest.raises(ValueError, match=r"is not finished; the same mlipjax finetune command goes on with it"):
        run_models(folder)
    # what a kill while the snapshot of step 6 is written leaves behind
    half = folder / "snapshots" / "step-000006.tmp"
    half.mkdir()
    (half / "params.safetensors.tmp").write_bytes(b"half")
    finetune(model, labelled_dataset(SIZES), settings=SETTINGS, out=folder)
    assert snapshots(folder).keys() == snapshots(straight[0]).keys()
    assert snapshots(folder) == snapshots(straight[0])


def test_property_runs_keep_theirs_and_resume_alike(model, tmp_path):
    systems = labelled_dataset(SIZES).systems
    data = label_property(systems, "oxygen", [np.mean(s.atomic_numbers == 8) for s in systems])
    settings = FinetuneSettings(strategy="ft", valid_fraction=0.25, snapshots=4)
    options = PropertySettings(property_hidden=(4,), property_batch_size=4, steps=10, validate_every=4)

    def run(name, listener=None):
        finetune_property(
            model, PropertyInput(data), settings=settings, options=options, out=tmp_path / name, listener=listener
        )  # fmt: skip
        return tmp_path / name

    with pytest.raises(Killed):
        run("killed", KillAt(5))
    folder = run("straight")
    assert snapshots(run("killed")) == snapshots(folder)
    models = run_models(folder)
    assert [one.step for one in models[:-1]] == [0, 2, 5, 8, 10]
    assert models[-1].step == json.loads((folder / "report.json").read_text())["best_step"]
    first = load(models[0].path)
    assert [head.name for head in first[0].properties] == ["oxygen"]
    assert_equal({name: first[1][name] for name in model[1]}, model[1])


def test_folders_without_snapshots_say_how_to_get_them_and_stay_what_they_are(model, tmp_path):
    without = FinetuneSettings(e0s="estimate", anchor="none", epochs=1, batch_size=3)
    finetune(model, labelled_dataset(SIZES), settings=without, out=tmp_path / "out")
    assert not (tmp_path / "out" / "snapshots").exists()
    with pytest.raises(ValueError, match=r"has no snapshots; fine-tune into a new folder with snapshots=10"):
        run_models(tmp_path / "out")
    # a folder of a version without the setting is the same run still, and another one with snapshots
    run = tmp_path / "out" / "run.json"
    description = json.loads(run.read_text())
    del description["settings"]["snapshots"]
    run.write_text(json.dumps(description))
    finetune(model, labelled_dataset(SIZES), settings=without, out=tmp_path / "out")
    asked = FinetuneSettings(e0s="estimate", anchor="none", epochs=1, batch_size=3, snapshots=2)
    with pytest.raises(ValueError, match=r"holds another run: snapshots was 0, now 2\. Choose"):
        finetune(model, labelled_dataset(SIZES), settings=asked, out=tmp_path / "out")
    with pytest.raises(ValueError, match="holds no fine-tune"):
        run_models(tmp_path)


def test_snapshots_that_cannot_be_kept_are_refused(model, tmp_path):
    data = labelled_dataset(SIZES)
    settings = FinetuneSettings(e0s="estimate", anchor="none", epochs=1, batch_size=3, snapshots=20)
    with pytest.raises(ValueError, match="snapshots=20 of a run of 2 steps"):
        finetune(model, data, settings=settings, out=tmp_path / "out")
    with pytest.raises(ValueError, match="are kept in the folder of a run"):
        finetune(
            model, data, settings=FinetuneSettings(e0s="estimate", anchor="none", epochs=1, batch_size=3, snapshots=2)
        )
    with pytest.raises(ValueError, match="snapshots must not be negative, found -1"):
        FinetuneSettings(snapshots=-1)
