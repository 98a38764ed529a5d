import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlipjax.data import Dataset, find_group_key, read_dataset, split_dataset
from mlipjax.notices import Notice
from mlipjax.system import Labels, System


def dataset(infos):
    systems = tuple(System(np.full((1, 3), float(i)), np.ones(1, int), np.eye(3)) for i in range(len(infos)))
    return Dataset(systems, tuple(Labels.create(1, float(i)) for i in range(len(infos))), tuple(infos))


def members(part):
    return [int(label.energy) for label in part.labels]


def by_run(sizes):
    return dataset([{"run": run} for run, size in enumerate(sizes) for _ in range(size)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(0, 5), st.floats(0.01, 0.9))
def test_groups_stay_whole_and_nothing_is_lost(sizes, seed, fraction):
    data = by_run(sizes)
    split = split_dataset(data, valid=fraction, test=0.2, seed=seed)
    parts = [split.train, split.valid, split.test]
    assert sorted(index for part in parts for index in members(part)) == list(range(len(data)))
    runs = [{info["run"] for info in part.infos} for part in parts]
    assert all(runs)
    assert sum(len(group) for group in runs) == len(sizes)
    assert split.group_key == "run"


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_file():
    data = by_run([4] * 8)
    shuffled = data.subset(np.random.default_rng(0).permutation(len(data)))
    first = split_dataset(data, valid=0.25, seed=3)
    assert split_dataset(data, valid=0.25, seed=3).groups == first.groups
    assert split_dataset(shuffled, valid=0.25, seed=3).groups == first.groups
    assert len({split_dataset(data, valid=0.25, seed=seed).groups["valid"] for seed in range(20)}) > 5


@pytest.mark.parametrize(
    ("valid", "test", "sizes"),
    [
        (0.25, 0.0, (24, 8, 0)),
        (8, 4, (20, 8, 4)),
        (0.25, 0.25, (16, 8, 8)),
        (0.0, 0.0, (32, 0, 0)),
        (1, 0, (28, 4, 0)),
    ],
)
def test_amounts_are_fractions_or_numbers(valid, test, sizes):
    split = split_dataset(by_run([4] * 8), valid=valid, test=test)
    assert (len(split.train), len(split.valid), len(split.test)) == sizes


@pytest.mark.parametrize("amount", [-1, 1.0, 32, -0.1, "half"])
def test_impossible_amounts(amount):
    with pytest.raises(ValueError, match="give a fraction"):
        split_dataset(by_run([4] * 8), valid=amount)


def test_too_few_groups():
    with pytest.raises(ValueError, match="2 values of 'run' cannot fill train and test and valid"):
        split_dataset(by_run([5, 5]), valid=0.1, test=0.1)


def test_known_keys_are_looked_for_in_order():
    infos = [{"group": i % 3, "run": i % 2, "mp_id": i} for i in range(6)]
    assert find_group_key(dataset(infos)) == "run"
    assert find_group_key(dataset([{**info, "run": 1} for info in infos])) == "group"
    assert find_group_key(dataset([{"frame": i} for i in range(6)])) is None
    split = split_dataset(dataset(infos), valid=0.2, group_key="mp_id")
    assert split.group_key == "mp_id"
    with pytest.raises(ValueError, match=r"structure 0 has no 'system'.*'run': 6"):
        split_dataset(dataset(infos), group_key="system")


def test_structures_without_the_key_of_the_others_go_one_by_one_and_that_is_said():
    data = dataset([{"run": 1}] * 6 + [{"run": 2}] * 6 + [{}] * 4)
    with pytest.warns(Notice, match="4 of 16 structures carry no 'run'"):
        split = split_dataset(data, valid=0.3, seed=1)
    runs = [{info.get("run") for info in part.infos} - {None} for part in (split.train, split.valid)]
    assert not runs[0] & runs[1]
    assert sorted(members(split.train) + members(split.valid)) == list(range(16))
    shuffled = data.subset(np.random.default_rng(0).permutation(16))
    with pytest.warns(Notice):
        again = split_dataset(shuffled, valid=0.3, seed=1)
    assert sorted(members(again.valid)) == sorted(members(split.valid))


def test_kinds_of_configurations_are_no_groups():
    infos = [{"config_type": "bulk"}] * 18 + [{"config_type": "surface"}] * 2
    assert find_group_key(dataset(infos)) is None
    assert find_group_key(dataset([{**info, "run": i // 5} for i, info in enumerate(infos)])) == "run"
    # only some have one: it does not keep the others from being split
    with pytest.warns(UserWarning, match="splitting by frame"):
        split = split_dataset(dataset([{}] * 18 + infos[-2:]), valid=0.2)
    assert len(split.valid) == 4


def test_a_kind_that_is_a_trajectory_is_a_group():
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(scale=0.05, size=(8, 5, 3)), axis=0) for _ in range(3)]
    systems = tuple(System(frame, np.ones(5, int), 20.0 * np.eye(3)) for walk in walks for frame in walk)
    infos = tuple({"config_type": f"md {run}"} for run in range(3) for _ in range(8))
    labels = tuple(Labels.create(5, float(i)) for i in range(24))
    assert find_group_key(Dataset(systems, labels, infos)) == "config_type"
    # frames in no order are no trajectory
    assert find_group_key(Dataset(systems, labels, infos).subset(rng.permutation(24))) is None


def test_a_split_by_frame_says_so():
    with pytest.warns(UserWarning, match="splitting by frame"):
        split = split_dataset(dataset([{}] * 20), valid=0.1, test=3)
    assert (len(split.train), len(split.valid), len(split.test)) == (15, 2, 3)
    assert split.group_key is None
    assert "split by frame" in split.describe()


def test_published_data_split_by_run(shared_data):
    data = read_dataset(shared_data / "chclca" / "naive.extxyz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = split_dataset(data, valid=0.2)
    assert split.describe().endswith("split by 'run' (4 / 1 / 0 groups)")
    assert len(split.train) + len(split.valid) == 51
