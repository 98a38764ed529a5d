"""mlipjax finetune --property and evaluate --property, from files to files."""

import json
import re

import jax
import numpy as np
import pytest
import tyro
from ase import Atoms
from ase.io import read
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import load, save
from mlipjax.cli import evaluate, finetune
from mlipjax.cli.wording import in_options
from mlipjax.data.properties import label_property
from mlipjax.finetuning.properties import PropertyInput, prepare_property
from mlipjax.models import NequIPConfig, nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.settings import FinetuneSettings, PropertySettings


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model, and structures with a property."""
    folder = tmp_path_factory.mktemp("property")
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", lmax=1, n_layers=2, radial_basis_size=4, radial_hidden=(8,))
    potential = nequip(config, np.array([-2.0, -31.0, -79.0]))
    save(folder / "model", potential, potential.init(jax.random.key(1)))
    frames = [system.to_ase() for system in labelled_dataset((6,) * 16).systems]
    for frame in frames:
        frame.info["oxygen"] = float(np.mean(frame.numbers == 8))
        frame.write(folder / "data.extxyz", append=True)
    return folder


def run(module, options_of, *arguments):
    module.run(tyro.cli(options_of, args=[str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def probe(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    options = ["--model", files / "model", "--property", f"{files / 'data.extxyz'}:oxygen", "--strategy", "lp",
               "--steps", 30, "--property-batch-size", 4, "--property-hidden", 8, "--property-unit", "1",
               "--lr", "0.02", "--valid-fraction", "0.25", "--out", out]  # fmt: skip
    run(finetune, finetune.Finetune, *options)
    return out, options


def test_a_run_leaves_a_model_that_predicts_the_property(files, probe, tmp_path, capsys):
    out, options = probe
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] == 30
    potential, params = load(out)
    assert [head.name for head in potential.properties] == ["oxygen"]
    assert potential.properties[0].std == report["property"]["std"]
    before = load(files / "model")[1]
    jax.tree.map(np.testing.assert_array_equal, dict(before), {name: params[name] for name in before})

    arguments = ["--property", f"{files / 'data.extxyz'}:oxygen", "--json", tmp_path / "errors.json"]
    run(evaluate, evaluate.Evaluate, "--model", out, *arguments)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert (errors["n"], errors["unit"]) == (16, "1")
    # better than a constant, whose RMSE is the standard deviation
    assert errors["rmse"] < report["property"]["std"]

    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    (out / "report.html").unlink()
    started = (out / "report.json").stat().st_mtime_ns
    run(finetune, finetune.Finetune, *options)
    assert (out / "report.json").stat().st_mtime_ns == started
    assert (out / "report.html").read_text() == page
    assert "oxygen" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"holds another run: .*seed was 0, now 1"):
        run(finetune, finetune.Finetune, *options, "--seed", 1)


def test_denoising_is_a_task_with_structures_and_batches_of_its_own(files, tmp_path, capsys):
    # the same structures without labels
    for frame in read(files / "data.extxyz", ":"):
        Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc).write(
            tmp_path / "unlabelled.extxyz", append=True
        )
    options = ["--model", files / "model", "--property", f"{files / 'data.extxyz'}:oxygen", "--strategy", "ft",
               "--steps", 12, "--property-batch-size", 4, "--property-hidden", 8, "--valid-fraction", "0.25",
               "--denoise", "0.1", "--denoise-share", "0.5", "--denoise-batch-size", 2,
               "--denoise-data", tmp_path / "unlabelled.extxyz"]  # fmt: skip
    run(finetune, finetune.Finetune, *options, "--out", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "15 structures of their own, 1 more held out, displaced by 0.1 Å" in report["tasks"]["denoise"]
    assert report["denoising"]["mse"] > 0.0
    assert report["force_field"] == {}
    assert "of predicting zero" in capsys.readouterr().out
    potential, _ = load(tmp_path / "out")
    assert [(head.name, head.kind) for head in potential.properties] == [("oxygen", "intensive"), ("denoise", "vector")]
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    steps = {name: sum(line["tasks"].get(name, {"steps": 0})["steps"] for line in lines) for name in
             ("oxygen", "denoise")}  # fmt: skip
    assert sum(steps.values()) == 12
    assert min(steps.values()) > 1
    assert "mse_of_zero" in lines[-1]["tasks"]["denoise"]["valid"]
    # a second property goes on with the head that is there
    sizes = label_property(labelled_dataset((6,) * 8).systems, "size", np.arange(8.0))
    ready = prepare_property(
        load(tmp_path / "out"),
        PropertyInput(sizes, sizes),
        FinetuneSettings(strategy="ft"),
        PropertySettings(denoise=0.1),
    )
    assert [head.name for head in ready.potential.properties] == ["oxygen", "denoise", "size"]
    assert "the property's structures, displaced" in ready.notes["denoise"]
    with pytest.raises(ValueError, match="give denoise in Å"):
        run(finetune, finetune.Finetune, *options[:6], "--denoise-batch-size", 2, "--out", tmp_path / "other")


def test_heads_survive_saving_and_loading_to_the_last_bit(files, tmp_path):
    potential, _ = load(files / "model")
    heads = (
        PropertyHead("gap", hidden=(3, 2), mean=0.1, std=0.3, unit="eV"),
        PropertyHead("volume", "extensive", hidden=(), layers="all"),
        PropertyHead("denoise", "vector", hidden=(2,)),
    )
    potential = potential.replace(properties=heads)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    save(tmp_path / "saved", potential, params)
    again, restored = load(tmp_path / "saved")
    assert again.properties == heads
    jax.tree.map(np.testing.assert_array_equal, dict(params), restored)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --train FILE .* or --property FILE:KEY"),
        (["--property", "data.extxyz"], "given as FILE:KEY"),
        (["--train", "data.extxyz", "--strategy", "mft"], "need --property FILE:KEY"),
        (["--train", "data.extxyz", "--steps", "5"], "need --property FILE:KEY"),
    ],
)
def test_commands_that_cannot_be_honoured_are_refused(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=r"\w") as error:
        run(finetune, finetune.Finetune, "--model", files / "model", "--out", tmp_path / "out", *options)
    assert re.search(message, in_options(str(error.value), finetune.Finetune))


def test_a_model_without_the_property_cannot_be_evaluated_on_it(files):
    with pytest.raises(ValueError, match="does not predict 'oxygen'; it predicts no property at all"):
        run(evaluate, evaluate.Evaluate, "--model", files / "model", "--property", f"{files / 'data.extxyz'}:oxygen")
    with pytest.raises(ValueError, match="either data=") as error:
        run(evaluate, evaluate.Evaluate, "--model", files / "model")
    assert "either --data FILE" in in_options(str(error.value), evaluate.Evaluate)
