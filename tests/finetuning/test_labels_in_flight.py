"""Labels while MD and training go on: the same numbers where that is promised, else at most one round late."""

import dataclasses
import functools
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from finetuning.loop_case import CONFIG, case, start

from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.labelling import PREDICTED, FrameLabels, Predicted
from mlipjax.finetuning.records import round_rows
from mlipjax.oracles import Labeller, LabelStore, SerialExecutor, Teacher


class Slow(Teacher):
    """Takes its time, and notes when a label was begun."""

    seconds, begun = 0.0, []

    def label(self, system):
        self.begun.append((len(self.begun), time.monotonic()))
        time.sleep(self.seconds)
        return super().label(system)


@pytest.fixture(scope="module")
def slow():
    setup, teacher, params, controls = case(dataclasses.replace(CONFIG, estimate_shift=True))
    return setup, Slow(teacher.potential, teacher.params), params, controls


def run(slow, folder, executor, n_rounds=3, on_piece=lambda piece: None, **options):
    setup, oracle, params, controls = slow
    with Labeller(oracle, folder / "labels.db", executor=executor) as labeller:
        loop = HostLoop(setup, labeller, controls, folder, on_piece, **options)
        result = loop.run(start(setup, params, controls, n_replicas=1), n_rounds)
    return result, labeller.counts


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.train.params, [s.buffer for s in state.systems]))]


@pytest.mark.slow
def test_labels_behind_md_change_no_bit_and_those_behind_training_come_one_round_late(slow, tmp_path, monkeypatch):
    (one, _), (other, counts) = (
        run(slow, tmp_path / name, executor)
        for name, executor in (("serial", SerialExecutor()), ("threads", ThreadPoolExecutor(2)))
    )
    for a, b in zip(leaves(one.state), leaves(other.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert counts.computed == 6

    monkeypatch.setattr(Slow, "seconds", 1.0)
    told = []
    result, counts = run(slow, tmp_path / "late", ThreadPoolExecutor(1), on_piece=told.append, asynchronous=True)
    assert (counts.computed, counts.reused) == (6, 0)
    order = [(record["stage"], record["round"]) for record in result.history]
    assert order.index(("label", 0)) < order.index(("train", 0))  # its energies set the zero
    assert order.index(("finish", 1)) < order.index(("label", 1)) < order.index(("train", 2))
    assert order.index(("label", 2)) < order.index(("train", 2))
    trained = {record["round"]: record["labelled"][0] for record in result.history if record["stage"] == "train"}
    assert trained[0] == 2 <= trained[1] < 4
    assert trained[2] == 6
    assert [row["labels_before"] for row in round_rows(result.history)] == [0, 2, trained[1]]
    assert [row["labels"] for row in round_rows(result.history)] == [2, 2, 2]
    assert bool(result.state.systems[0].buffer.labelled[:6].all())
    # the first round is as ever; what the second one trains on differs
    for own, known in zip(round_rows(result.history)[0].items(), round_rows(one.history)[0].items(), strict=True):
        assert own == known


@pytest.mark.slow
def test_an_asynchronous_run_that_is_stopped_anywhere_goes_on(slow, tmp_path, monkeypatch):
    monkeypatch.setattr(Slow, "seconds", 0.3)

    class Killed(Exception):
        pass

    def killing(pieces):
        left = [pieces]

        def tell(piece):
            left[0] -= piece.record is not None
            if not left[0]:
                raise Killed

        return tell

    again = functools.partial(run, slow, tmp_path, asynchronous=True)
    for _ in range(30):
        with ThreadPoolExecutor(1) as threads:
            try:
                result, _ = again(threads, on_piece=killing(2))
                break
            except Killed:
                continue
    else:
        pytest.fail("the run never finished")
    assert len(LabelStore(tmp_path / "labels.db")) == 6  # which takes none twice
    rows = round_rows(result.history)
    assert [row["labels"] for row in rows] == [2, 2, 2]
    assert all(np.isfinite(row["force_rmse_meV_per_A"]) for row in rows)
    assert bool(result.state.systems[0].buffer.labelled[:6].all())


def test_predictions_of_two_rounds_are_kept_on_the_disk(slow, tmp_path):
    _, oracle, *_ = slow
    with ThreadPoolExecutor(1) as threads, Labeller(oracle, executor=threads) as labeller:
        rng, labels = np.random.default_rng(0), FrameLabels(labeller, True, tmp_path)
        parts = [[Predicted(rng.normal(size=2), rng.normal(size=(2, n, 3))) for n in (3, 4)] for _ in range(3)]
        for number, part in enumerate(parts):
            labels._keep(number, part)
        read = FrameLabels(labeller, True, tmp_path)._predicted
    assert sorted(read) == [1, 2]
    for number in (1, 2):
        for own, other in zip(read[number], parts[number], strict=True):
            np.testing.assert_array_equal(own.energies, other.energies)
            np.testing.assert_array_equal(own.forces, other.forces)
    with Labeller(oracle) as labeller:  # in the calling thread: nothing can be late
        assert not FrameLabels(labeller, True, tmp_path / "other").asynchronous
    assert not (tmp_path / "other" / PREDICTED).exists()
