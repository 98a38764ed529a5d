"""Fine-tunes with Hessian products beside energies and forces, on a one-layer model."""

import functools
import json

import jax
import numpy as np
import pytest
from ase.io import write
from labelled_files import labelled, model, other_material, rock_salts
from test_finetune_strategies import StopAt

import mlipjax
from mlipjax.cli.main import main
from mlipjax.data import write_dataset
from mlipjax.data.products import PROBE, PRODUCT, products_of_displacements
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.single import prepare
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.potential import Model
from mlipjax.train import ForceField, LabelledBatches, Prefactors, read_metrics
from mlipjax.train.products import label_products, product_errors
from mlipjax.train.tasks import compiled_gradient

OPTIONS = {
    "epochs": 12,
    "batch_size": 2,
    "replay_size": 8,
    "learning_rate": 3e-3,
    "hvp_weight": 1.0,
    "e0s": "estimate",
    "ignore": ("units", "sign"),
}


@functools.cache
def teacher():
    return Model(model().potential, other_material(model().params))


@functools.cache
def data():
    train = labelled(rock_salts(6), teacher().params, run=lambda i: i // 2)
    return train, labelled(rock_salts(2, seed=9), teacher().params, seed=1, run=lambda i: 100 + i)


@functools.cache
def products():
    """Of other structures, by the teacher."""
    return label_products(teacher(), rock_salts(8, seed=3), seed=0)


def tuned(hvp=(), **changes):
    train, valid = data()
    return mlipjax.finetune(model(), train, valid=valid, hvp=hvp, **(OPTIONS | changes))


@functools.cache
def tuned_on_products():
    return tuned(products())


def displaced(n=2):
    """Plus and minus displacements of a rock salt with the teacher's forces, as structures of ASE."""
    frames = []
    for atoms in (system.to_ase() for system in rock_salts(n, seed=5)):
        step = np.random.default_rng(0).normal(scale=0.003, size=(len(atoms), 3))
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.positions += sign * step
            frames.append(moved)
    return mlipjax.predict(teacher(), frames, dtype="float64")


def test_products_are_learned_reported_and_judged():
    found = tuned_on_products().report
    assert found["split"].endswith("; 7 train / 1 valid Hessian products as given")
    after, before = found["after"], found["before"]
    whole = [product_errors(one, products())["hvp_relative_error"] for one in (model(), tuned_on_products().model)]
    assert whole[1] < 0.7 * whole[0]
    low, high = after["confidence_95"]["hvp_mae_eV_per_A2"]
    assert low <= after["hvp_mae_eV_per_A2"] <= high
    assert after["force_mae_meV_per_A"] < before["force_mae_meV_per_A"]
    assert found["retained"]["after"]["force_mae_meV_per_A"] > 0.0


def test_displaced_structures_say_the_same_as_a_teacher():
    from_forces = products_of_displacements(mlipjax.read(displaced()))
    batches = LabelledBatches.create(teacher().potential, from_forces, 1)
    errors = product_errors(teacher(), from_forces)
    assert len(batches.dataset) == 2
    assert errors["hvp_relative_error"] < 1e-3  # third order of the displacement, and single precision


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    for step in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            tuned(products(), out=tmp_path, listener=StopAt(step))
    resumed = tuned(products(), out=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, tuned_on_products().params)
    assert "hvp_mae_eV_per_A2" in json.loads((tmp_path / "report.json").read_text())["after"]
    assert all("hvp_mae_eV_per_A2" in record for record in read_metrics(tmp_path))
    assert "Hessian products" in (tmp_path / "report.html").read_text()
    other = label_products(teacher(), rock_salts(4, seed=3), seed=1)
    with pytest.raises(ValueError, match="holds another run: another hvp"):
        tuned(other, out=tmp_path)
    with pytest.raises(ValueError, match=r"hvp_weight was 1\.0, now 2"):
        tuned(products(), out=tmp_path, hvp_weight=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"strategy": "lora", "lora_rank": 2}, {"strategy": "pseudo-replay"}])
def test_other_strategies_train_on_them(options, tmp_path):
    mlipjax.save(tmp_path / "teacher", *teacher())
    found = tuned(f"teacher:{tmp_path / 'teacher'}", epochs=2, **options)
    assert "6 train / 2 valid Hessian products of a teacher" in found.report["split"]
    assert found.report["after"]["hvp_mae_eV_per_A2"] < found.report["before"]["hvp_mae_eV_per_A2"]


def test_without_products_programs_are_what_they_were():
    train, _ = data()
    unchanged = prepare(model(), *data(), FinetuneSettings(**OPTIONS)).training.mixture.tasks
    assert [task.name for task in unchanged] == ["training"]
    carrying = train.subset(range(len(train)))
    extra = products().labels[0].properties
    labels = tuple(label.replace(properties=extra) for label in carrying.labels)
    optimizer = Optimizer(make_strategy("naive", model().params).optimizer_config(10))
    objective = ForceField(model().potential, huber_loss())
    texts = []
    for dataset in (train, type(train)(train.systems, labels, train.infos)):
        batches = LabelledBatches.create(model().potential, dataset, 2)
        batch = batches.batch(batches.plans[0])
        assert (PRODUCT in batch.labels.properties) == (dataset is not train)
        arguments = model().params, batch, Prefactors.constant(LossWeights()), objective.counts(batch)
        texts.append(compiled_gradient.lower(objective, optimizer, *arguments).as_text())
    assert texts[0] == texts[1]


def turned(dataset):
    labels = (label.replace(properties={**label.properties, PRODUCT: -label.properties[PRODUCT]})
              for label in dataset.labels)  # fmt: skip
    return type(dataset)(dataset.systems, tuple(labels), dataset.infos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hvp": "teacher:"}, r"hvp=teacher:: give teacher:MODEL, or files"),
        ({"hvp": ("teacher:universal", "a.extxyz")}, r"give teacher:MODEL, or files, not both"),
        ({"hvp": "nothing.extxyz"}, r"nothing.extxyz"),
        ({"hvp_weight": -1.0}, r"loss weights must not be negative"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tuned(**options)


def test_products_with_the_sign_of_forces_are_refused():
    with pytest.raises(ValueError, match=r"Hessian products are -\d.* times the labels .* minus the change of the f"):
        tuned(turned(products()))


def test_products_beside_a_committee_or_a_property_are_refused(tmp_path):
    with pytest.raises(ValueError, match="committee=2 is trained on energies and forces alone; leave hvp out"):
        tuned(products(), committee=2, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"\(hvp\) are trained on beside energies and forces, not beside a property"):
        mlipjax.finetune(model(), property="a.npz:gap", hvp=products(), strategy="ft")


def test_the_commands_take_files_of_products_and_show_their_errors(tmp_path, capsys):
    mlipjax.save(tmp_path / "model", *model())
    write_dataset(tmp_path / "train.extxyz", data()[0])
    write(tmp_path / "displaced.extxyz", displaced())
    files = ["--model", str(tmp_path / "model"), "--train", str(tmp_path / "train.extxyz")]
    fast = ["--epochs", "1", "--anchor", "none", "--e0s", "estimate", "--ignore", "units", "sign", "--out"]
    line = [*files, "--hvp", str(tmp_path / "displaced.extxyz"), *fast, str(tmp_path / "out")]
    assert main(["finetune", *line]) == 0
    assert "Hessian products: MAE, eV/Å²" in capsys.readouterr().out
    frames = []
    for system, labels, _ in products():
        frames.append(system.to_ase())
        frames[-1].arrays |= {name: labels.properties[name] for name in (PROBE, PRODUCT)}
    write(tmp_path / "products.extxyz", frames)
    report = mlipjax.evaluate(tmp_path / "out", tmp_path / "products.extxyz")
    assert report["n_hvp"] == 8
    assert main(["evaluate", "--model", str(tmp_path / "out"), "--data", str(tmp_path / "products.extxyz")]) == 0
    assert "Hessian products: relative" in capsys.readouterr().out
    write(tmp_path / "one.extxyz", displaced()[:1])
    line = [*files, "--hvp", str(tmp_path / "one.extxyz"), *fast, str(tmp_path / "other")]
    assert main(["finetune", *line]) == 1
    assert "one.extxyz, structure 0: no other structure" in capsys.readouterr().err
