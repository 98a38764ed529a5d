import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.optim import Optimizer, OptimizerConfig
from mlipjax.train import Checkpoints, TrainState
from mlipjax.train.checkpoint import _patiently


def make_state(seed=0, shape=(2, 3)):
    params = {"layer_0": {"w": jnp.full(shape, 0.1, jnp.float32)}, "readout": {"w": jnp.ones(3)}}
    optimizer = Optimizer(OptimizerConfig((("layer_0/.*", None), (".*", (1.0, 0))), 10))
    return TrainState.create(params, optimizer, jax.random.key(seed))


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state = make_state(seed=7)
    state = state.replace(step=jnp.int32(5), best_metric=jnp.float32(np.nextafter(np.float32(1), np.float32(2))))
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest() is None
        assert checkpoints.restore(make_state()) is None
        checkpoints.save(5, state)
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest() == 5
        restored = checkpoints.restore(make_state())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert jax.random.key_data(restored.key).tolist() == jax.random.key_data(state.key).tolist()
    for a, b in zip(*(jax.tree.leaves(s.replace(key=None)) for s in (restored, state)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_newest_complete_checkpoint_counts(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": np.full(3, step)})
    # what a kill while saving leaves behind
    unfinished = next(tmp_path.glob("3*")).with_name("4.orbax-checkpoint-tmp")
    unfinished.mkdir()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore({"x": np.zeros(3, int)})["x"], 3)
        checkpoints.save(4, {"x": np.full(3, 4)})
        assert checkpoints.latest() == 4
    assert {path.name for path in tmp_path.iterdir() if path.name.isdigit()} == {"3", "4"}


@pytest.mark.parametrize("template", [make_state(shape=(2, 4)), {"x": np.zeros(3)}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, template):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state())
        with pytest.raises(ValueError, match="checkpoint 1 is of another run"):
            checkpoints.restore(template)


def test_a_state_with_room_for_more_takes_a_shorter_one_up(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": np.arange(6.0).reshape(3, 2), "y": np.zeros(())})
        longer = {"x": np.full((5, 2), 9.0), "y": np.ones(())}
        with pytest.raises(ValueError, match="of another run"):
            checkpoints.restore(longer)
        restored = checkpoints.restore(longer, grow=True)
        np.testing.assert_array_equal(restored["x"], [[0, 1], [2, 3], [4, 5], [9, 9], [9, 9]])
        assert restored["y"] == 0.0
        with pytest.raises(ValueError, match="of another run"):  # no room is made by taking frames away
            checkpoints.restore({"x": np.zeros((2, 2)), "y": np.zeros(())}, grow=True)
        with pytest.raises(ValueError, match="of another run"):
            checkpoints.restore({"x": np.zeros((5, 3)), "y": np.zeros(())}, grow=True)


def test_a_folder_that_late_writes_fill_is_cleared_again():
    left = [errno.ENOTEMPTY, errno.ENOTEMPTY]

    def save():
        if left:
            raise OSError(left.pop(), "Directory not empty", "d")
        saved.append(True)

    saved = []
    _patiently(save, (0.0, 0.0, 0.0))
    assert saved == [True]
    left += [errno.ENOSPC]
    with pytest.raises(OSError, match="Directory not empty") as caught:
        _patiently(save, (0.0,))
    assert caught.value.errno == errno.ENOSPC
    assert saved == [True]
