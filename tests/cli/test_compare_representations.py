"""``mlipjax compare-representations`` from files to report, with tiny models."""

import csv
import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from tiny_nequip import random_params

from mlipjax.cli.main import main
from mlipjax.data import read_dataset
from mlipjax.data.properties import label_property
from mlipjax.finetuning.properties import PropertyInput, finetune_property
from mlipjax.models import NequIPConfig, load, nequip, save
from mlipjax.settings import FinetuneSettings, PropertySettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rattled molecules, a model, the same with a flat last layer, and one of another width."""
    folder = tmp_path_factory.mktemp("compare")
    frames = []
    for seed in range(6):
        for name in ("CH3CH2OH", "C2H4", "CH3COOH"):
            atoms = molecule(name)
            atoms.rattle(0.02, seed=seed)
            frames.append(atoms)
    write(folder / "data.extxyz", frames)
    write(folder / "old.extxyz", [frame for frame in frames if "O" not in frame.symbols])
    config = NequIPConfig(species=(1, 6, 8), cutoff=3.0, hidden_irreps="6x0e", lmax=0, n_layers=1, radial_hidden=(4,))
    potential = nequip(config)
    params = random_params(potential, dtype=np.float32)
    save(folder / "before", potential, params)
    kernel = params["layer_0"]["linear_down"]["0e"]
    flat = {**params["layer_0"], "linear_down": {"0e": np.repeat(kernel.mean(axis=1, keepdims=True), 6, axis=1)}}
    save(folder / "after", potential, {**params, "layer_0": flat})
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """Two fine-tunes to a property: of all parameters, and of a head on features that stay as they are."""
    systems = read_dataset(folder / "data.extxyz", required=()).systems
    data = label_property(systems, "size", [system.n_atoms for system in systems])
    options = PropertySettings(property_hidden=(4,), property_batch_size=9, steps=6)
    for strategy in ("ft", "lp"):
        settings = FinetuneSettings(strategy=strategy, learning_rate=0.05, ema_decay=0.0, snapshots=3)
        finetune_property(
            load(folder / "before"), PropertyInput(data), settings=settings, options=options, out=folder / strategy
        )
    return folder


def command(folder, *options, models=("before", "after"), runs=(), data="data.extxyz"):
    given = [part for model in models for part in ("--model", str(folder / model))]
    given += [part for run in runs for part in ("--run", str(folder / run))]
    quick = ["--resamples", "10", "--tsne-seeds", "1", "--perplexities", "8"]
    return main(["compare-representations", *given, "--data", str(folder / data), *quick, *options])


def test_numbers_table_figures_and_report_are_written(folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", str(out), "--old", str(folder / "old.extxyz"), "--json", str(tmp_path / "numbers.json")]
    assert command(folder, *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "after: classes" in printed
    results = json.loads((out / "results.json").read_text())
    assert json.loads((tmp_path / "numbers.json").read_text())["nodes"] == results["nodes"]
    nodes, edges = results["nodes"], results["edges"]
    assert nodes["models"] == edges["models"] == ["before", "after"]
    # the six oxygen atoms with one neighbour are too few for a class
    assert nodes["classes"] == {"C3": 18, "C4": 18, "H": 84, "O2": 12}
    assert {"C-H", "H-C", "C-O", "H..H"} <= set(edges["classes"])
    drift = nodes["drift"]["after"]
    # six equal columns in place of six different ones
    assert drift["effective_rank_within_ratio"]["confidence_95"][1] < 1.0
    assert drift["wasserstein_standardised"]["confidence_95"][0] > 0.0
    # the messages are made before the map that was flattened
    assert edges["drift"]["after"]["cka"]["value"] == pytest.approx(1.0)
    assert edges["drift"]["after"]["wasserstein"]["value"] == 0.0
    assert len(nodes["tsne"]["after"]) == 1
    assert results["old_data_q"]["n_structures"] == 6
    for name in ("nodes_scores", "nodes_drift", "nodes_tsne", "edges_scores", "edges_drift"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with open(out / "table.csv", newline="") as file:
        rows = {(row["kind"], row["number"], row["model"]): row for row in csv.DictReader(file)}
    assert float(rows["nodes", "cka", "after"]["value"]) == pytest.approx(drift["cka"]["value"])
    html = (out / "report.html").read_text()
    assert "Representations: after against before" in html
    assert html.count("<figure>") == 5


def test_pairs_alone_get_maps_and_both_kinds_get_a_verdict(folder, tmp_path, capsys):
    assert command(folder, "--kind", "edges", "--out", str(tmp_path / "edges")) == 0
    assert (tmp_path / "edges" / "edges_tsne.png").exists()
    results = json.loads((tmp_path / "edges" / "results.json").read_text())
    assert len(results["edges"]["tsne"]["after"]) == 1
    capsys.readouterr()
    assert command(folder, "--tsne-seeds", "0") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "atoms of 18 structures in 4 classes" in printed
    assert "pairs of 18 structures in" in printed
    assert printed.count("after: classes") == 2


def test_runs_are_followed_from_before_the_first_step_to_the_model_that_was_kept(runs, tmp_path, capsys):
    options = ["--kind", "nodes", "--old", str(runs / "old.extxyz"), "--tsne-seeds", "0"]
    assert command(runs, *options, "--out", str(tmp_path / "out"), models=(), runs=("ft", "lp")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "against ft 0. ft kept: classes" in printed
    assert "ft 2: classes" not in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    nodes, best = results["nodes"], json.loads((runs / "ft" / "report.json").read_text())["best_step"]
    assert results["runs"]["ft"] == {"ft 0": 0, "ft 2": 2, "ft 4": 4, "ft 6": 6, "ft kept": best}
    assert nodes["models"] == [*results["runs"]["ft"], *results["runs"]["lp"]]
    # a head alone leaves the features where they were; all parameters move them, ever further
    for name in results["runs"]["lp"]:
        assert nodes["drift"][name]["wasserstein"]["value"] == 0.0
        assert nodes["drift"][name]["cka"]["value"] == pytest.approx(1.0)
        assert nodes["scores"][name] == nodes["scores"]["ft 0"]
    moved = [nodes["drift"][f"ft {step}"]["wasserstein"]["value"] for step in (2, 4, 6)]
    assert 0.0 < moved[0] < moved[1] < moved[2]
    assert (tmp_path / "out" / "nodes_along.png").read_bytes().startswith(b"\x89PNG")
    assert "Representations along ft, lp" in (tmp_path / "out" / "report.html").read_text()
    # the same numbers as of the saved models one by one
    models = ("ft/snapshots/step-000000", "ft/snapshots/step-000004")
    assert command(runs, *options, "--json", str(tmp_path / "two.json"), models=models) == 0
    two = json.loads((tmp_path / "two.json").read_text())["nodes"]
    assert two["drift"]["step-000004"] == nodes["drift"]["ft 4"]


def test_bad_input_is_one_line_and_a_failing_exit_code(folder, tmp_path, capsys):
    write(tmp_path / "salt.extxyz", molecule("H2O") + molecule("NaCl"))
    cases = [
        (lambda: command(folder, models=("before",)), "--model is given 1 time(s)"),
        (lambda: command(folder, models=()), "or give --run"),
        (lambda: command(folder, runs=("ft",)), "give either --model, two or more times, or --run"),
        (lambda: command(folder, models=(), runs=("ft", "ft")), "two of the runs are called the same"),
        (lambda: command(folder, models=(), runs=("before",)), "holds no fine-tune"),
        (lambda: command(folder, models=("before", "before")), "called the same, before, before"),
        (lambda: command(folder, data="absent.extxyz"), "no such file"),
        (lambda: command(folder, "--layer", "3", "--kind", "nodes"), "there is no layer 3: this model has 1"),
        (
            lambda: command(tmp_path, models=(folder / "before", folder / "after"), data="salt.extxyz"),
            "not know Na, Cl",
        ),
        (lambda: command(folder, "--resamples", "1"), "--resamples must be between 2 and 1000000, found 1"),
        (lambda: command(folder, "--max-atoms", "12", "--kind", "nodes"), "fewer than two environment classes"),
    ]
    for run, message in cases:
        assert run() == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
