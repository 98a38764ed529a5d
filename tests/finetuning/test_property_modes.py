"""The four modes of S3 on a potential that trains in seconds."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_potential import SPECIES, init_params, labelled_dataset, tiny_potential

from mlipjax import tree
from mlipjax.data import View, read_dataset, read_examples, write_dataset, write_store
from mlipjax.data.properties import label_property, open_properties
from mlipjax.finetuning.properties import PropertyInput, finetune_property, prepare_property
from mlipjax.finetuning.properties_tasks import target_moments
from mlipjax.nn.readouts import PropertyHead
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings, PropertySettings

SIZES = (6,) * 12
OPTIONS = PropertySettings(property_hidden=(6,), property_batch_size=4, steps=8, validate_every=4)


@functools.cache
def model():
    # labelled_dataset's own potential: its labels are true ones
    potential = tiny_potential()
    return Model(potential, init_params(potential, seed=1000))


def property_data(seed=0):
    systems = labelled_dataset(SIZES, seed).systems
    return label_property(systems, "oxygen", [np.mean(s.atomic_numbers == 8) for s in systems])


def settings(strategy, **changes):
    return FinetuneSettings(strategy=strategy, dtype="float64", batch_size=4, valid_fraction=0.25, **changes)


@functools.cache
def tuned(strategy):
    replay = labelled_dataset(SIZES) if strategy == "mft" else None
    data = PropertyInput(property_data(), replay=replay, tests={"other": property_data(1)})
    return finetune_property(model(), data, settings=settings(strategy), options=OPTIONS)


def changed(params):
    before, after = (tree.flatten_paths(p) for p in (model()[1], params))
    return {path.split("/")[0] for path in before if not np.array_equal(before[path], after[path])}


def test_a_linear_probe_leaves_every_backbone_parameter_as_it_was():
    result = tuned("lp")
    assert changed(result.params) == set()
    assert result.report["n_trained_parameters"] == tree.count(result.params["property_oxygen"]["network"])
    np.testing.assert_array_equal(
        result.potential.apply(result.params, batch(result.potential)).forces,
        model()[0].apply(model()[1], batch(model()[0])).forces,
    )


def batch(potential):
    from mlipjax.train import make_batch

    data = labelled_dataset((6,))
    return make_batch(potential, data.systems, data.labels, dtype=np.float64).graph


def test_full_fine_tuning_moves_layers_and_not_the_force_fields_readout():
    assert changed(tuned("ft").params) == {"embedding", "layer_0", "layer_1"}


def test_scratch_forgets_where_it_started():
    assert changed(tuned("scratch").params) == set(model()[1])


def test_mft_trains_both_and_reports_both():
    report = tuned("mft").report
    assert changed(tuned("mft").params) == set(model()[1])
    assert report["force_field"]["force_field"]["force_mae_meV_per_A"] > 0.0
    assert "with their labels" in report["tasks"]["force_field"]
    assert report["steps"] == 8
    assert report["tests"]["other"]["n"] == len(SIZES)


def test_mft_from_stores_gives_the_same_bits_as_from_files(tmp_path):
    data = labelled_dataset(SIZES, 1)
    named = tuple({"oxygen": float(np.mean(system.atomic_numbers == 8))} for system in data.systems)
    for name, dataset in (("data", dataclasses.replace(data, infos=named)), ("replay", labelled_dataset(SIZES))):
        write_dataset(tmp_path / f"{name}.extxyz", dataset)
        write_store(tmp_path / name, read_examples(tmp_path / f"{name}.extxyz"))
    runs = []
    for suffix in (".extxyz", ""):
        data = open_properties(tmp_path / f"data{suffix}", "oxygen")
        assert isinstance(read_dataset(tmp_path / f"replay{suffix}").systems, View) == (not suffix)
        mft = settings("mft", replay=str(tmp_path / f"replay{suffix}"))
        runs.append(finetune_property(model(), PropertyInput(data), settings=mft, options=OPTIONS))
    from_files, from_stores = runs
    jax.tree.map(np.testing.assert_array_equal, from_files.params, from_stores.params)
    for part in ("property", "valid", "force_field"):
        assert from_files.report[part] == from_stores.report[part]


def test_the_head_holds_the_standardisation_of_its_training_values():
    result = tuned("ft")
    head = result.potential.property_head("oxygen")
    shown = result.report["property"]
    assert (head.mean, head.std) == (shown["mean"], shown["std"])
    assert 0.0 < head.std < 0.5
    with pytest.raises(ValueError, match="does not predict 'gap'; it predicts oxygen"):
        result.potential.property_head("gap")


def test_an_extensive_property_is_standardised_per_atom():
    data = property_data()
    sizes = label_property(data.systems, "size", [s.n_atoms * (1.0 + i) for i, s in enumerate(data.systems)])
    mean, std = target_moments(sizes, "size", "extensive")
    assert (mean, std) == (pytest.approx(6.5), pytest.approx(np.std(np.arange(12))))
    with pytest.raises(ValueError, match="takes one value only"):
        target_moments(label_property(data.systems, "one", np.ones(12)), "one", "intensive")


def test_without_replay_data_the_frozen_model_labels_generated_structures():
    ready = prepare_property(
        model(), PropertyInput(property_data()), settings("mft", replay_size=6), dataclasses.replace(OPTIONS)
    )
    assert "labels of the frozen model" in ready.notes["force_field"]
    _, task = ready.training.mixture.tasks
    # labels of the model itself: it starts without an error
    assert task.errors(ready.training.state.params)["force_mae_meV_per_A"] < 1e-6


def test_labels_of_another_level_are_refused():
    data = labelled_dataset(SIZES)
    shifted = tuple(dataclasses.replace(x, energy=x.energy + 100.0) for x in data.labels)
    replay = dataclasses.replace(data, labels=shifted)
    with pytest.raises(ValueError, match="level of theory that the model was trained with"):
        prepare_property(model(), PropertyInput(property_data(), replay=replay), settings("mft"), OPTIONS)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"strategy": "naive"}, {}, "learned by scratch, ft, lp, mft"),
        ({"strategy": "ft", "l2sp": 0.1}, {}, "l2sp=0.1 means nothing for a property"),
        ({"strategy": "ft", "replay": "data.extxyz"}, {}, "replay is for mft"),
        ({"strategy": "mft"}, {"prefactors": "published"}, "for the loss 'mse'"),
        ({"strategy": "lp"}, {"denoise": 0.1}, "lp trains no backbone"),
        ({"strategy": "ft", "layer_multipliers": (1.0, 1.0)}, {"published_decay": True}, "give one of them"),
    ],
)
def test_settings_that_a_property_cannot_honour_are_refused(changes, options, message):
    with pytest.raises(ValueError, match=message):
        finetune_property(
            model(),
            PropertyInput(property_data()),
            settings=settings(**changes),
            options=dataclasses.replace(OPTIONS, **options),
        )


def test_elements_and_names_are_checked_before_anything_is_trained():
    data = property_data()
    gold = [system.replace(atomic_numbers=np.full(6, 79, np.int32)) for system in data.systems]
    foreign = label_property(gold, "oxygen", np.arange(len(gold)))
    with pytest.raises(ValueError, match="does not know Au"):
        finetune_property(model(), PropertyInput(foreign), settings=settings("ft"), options=OPTIONS)
    again = tuned("lp")
    with pytest.raises(ValueError, match="predicts 'oxygen' already"):
        finetune_property(
            Model(again.potential, again.params), PropertyInput(data), settings=settings("ft"), options=OPTIONS
        )
    assert SPECIES == (1, 6, 8)
    assert isinstance(again.potential.properties[0], PropertyHead)
    assert jax.tree.structure(again.params) == jax.tree.structure(again.potential.init(jax.random.key(0)))
