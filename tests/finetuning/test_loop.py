"""The compiled loop and the host loop: equal to each other, differentiable, mappable, and exact after a kill."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import CONFIG, atoms, case, potential, start

from mlipjax.finetuning import FineTuneState, RoundConfig, check_rounds, run_compiled
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.round import draw_frames
from mlipjax.graph import batch_graphs
from mlipjax.oracles import Labeller
from mlipjax.system import System


def leaves(state: FineTuneState) -> list[np.ndarray]:
    return [
        np.asarray(leaf) for leaf in jax.tree.leaves((state.train.params, state.buffer, state.sim.dynamics.position))
    ]


@pytest.fixture(scope="module")
def compiled():
    setup, teacher, params, controls = case()
    run = jax.jit(run_compiled(setup, teacher, 2))
    return run, setup, teacher, params, controls


@pytest.mark.slow
def test_compiled_loop_labels_and_learns(compiled) -> None:
    run, setup, teacher, params, controls = compiled
    state, info = run(start(setup, params, controls), controls)
    check_rounds(info)
    assert int(state.round) == 2
    assert int(state.buffer.count) == 8
    assert bool(state.buffer.labelled.all())
    assert np.asarray(state.buffer.round).tolist() == [0] * 4 + [1] * 4
    assert info.temperature.shape == (2, 2, 6)
    changed = [
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state.train.params, params)), strict=True)
    ]
    assert all(changed)
    # the labels are the teacher's, for the frames in the buffer
    frame = System.from_ase(atoms())
    frame = dataclasses.replace(frame, positions=np.asarray(state.buffer.position[5]))
    labels = teacher.label(frame)
    np.testing.assert_allclose(state.buffer.labels.forces[5], labels.forces, atol=1e-10)
    reference = setup.potential.reference_energy(frame.atomic_numbers)
    np.testing.assert_allclose(state.buffer.labels.energy[5], labels.energy - reference, atol=1e-9)


@pytest.mark.slow
def test_host_loop_equals_compiled_loop(compiled, tmp_path) -> None:
    run, setup, teacher, params, controls = compiled
    expected, info = run(start(setup, params, controls), controls)
    with Labeller(teacher, tmp_path / "labels.db") as labeller:
        result = HostLoop(setup, labeller, controls, tmp_path).run(start(setup, params, controls), 2)
    for a, b in zip(leaves(result.state), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    losses = [loss for record in result.history if record["stage"] == "train" for loss in record["loss"]]
    np.testing.assert_allclose(losses, np.asarray(info.loss).reshape(-1), rtol=1e-6)


@pytest.mark.slow
def test_host_loop_resumes_bit_for_bit_after_any_piece(compiled, tmp_path) -> None:
    _, setup, teacher, params, controls = compiled
    rounds = []

    class Killed(Exception):
        pass

    @dataclasses.dataclass
    class KillAfter:
        pieces: int

        def piece(self, stage, state, record) -> None:
            self.pieces -= 1
            if self.pieces == 0:
                raise Killed

        def round_done(self, state) -> None:
            rounds.append(int(state.round))

    def loop(folder, listener=None) -> FineTuneState:
        with Labeller(teacher, folder / "labels.db") as labeller:
            state = HostLoop(setup, labeller, controls, folder, listener=listener).run(
                start(setup, params, controls), 2
            )
            return state.state

    (tmp_path / "whole").mkdir()
    expected = loop(tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    for _ in range(10):
        try:
            state = loop(tmp_path / "killed", KillAfter(2))
            break
        except Killed:
            continue
    else:
        pytest.fail("the run never finished")
    assert sorted(set(rounds)) == [0, 1]
    for a, b in zip(leaves(state), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_seeds_under_vmap_equal_separate_runs(compiled) -> None:
    run, setup, _, params, controls = compiled
    states = [start(setup, params, controls, seed) for seed in range(4)]
    together, _ = jax.jit(jax.vmap(run, in_axes=(0, None)))(jax.tree.map(lambda *x: jnp.stack(x), *states), controls)
    for i, state in enumerate(states):
        alone, _ = run(state, controls)
        for a, b in zip(leaves(jax.tree.map(lambda x, i=i: x[i], together)), leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_gradient_through_two_rounds_matches_central_differences(compiled) -> None:
    run, setup, teacher, params, controls = compiled
    rng = np.random.default_rng(0)
    held_out = []
    for _ in range(3):
        frame = atoms()
        frame.rattle(0.1, rng=rng)
        held_out.append(System.from_ase(frame))
    graph = batch_graphs(held_out, setup.potential.cutoff, dtype=np.float64)
    labels = teacher.label_graph(jax.tree.map(jnp.asarray, graph))
    state = start(setup, params, controls)

    def error(x: jax.Array) -> jax.Array:
        hyper = controls.hyper.replace(learning_rate=x[0] * 1e-3, decay=x[1])
        end, _ = run(state, controls.replace(hyper=hyper))
        prediction = setup.potential.apply(end.train.params, graph)
        return jnp.sqrt(jnp.mean((prediction.forces - labels.forces) ** 2))

    x = jnp.array([5.0, 0.8])
    gradient = jax.jit(jax.grad(error))(x)
    h = 1e-4
    steps = h * jnp.eye(2)
    numerical = jnp.array([(error(x + step) - error(x - step)) / (2 * h) for step in steps])
    cosine = gradient @ numerical / jnp.linalg.norm(gradient) / jnp.linalg.norm(numerical)
    assert cosine > 0.99
    np.testing.assert_allclose(gradient, numerical, rtol=1e-3)


def test_batches_are_epochs_of_the_labelled_frames() -> None:
    setup, _, params, controls = case()
    buffer = start(setup, params, controls).buffer
    buffer = buffer.replace(labelled=jnp.array([True, False, True, True, False, True, True, False]))
    drawn = [draw_frames(jax.random.key(0), jnp.asarray(step), buffer, 2) for step in range(5)]
    epochs = np.concatenate(drawn).reshape(2, 5)
    assert all(sorted(epoch) == [0, 2, 3, 5, 6] for epoch in epochs.tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


def test_oracle_with_longer_reach_is_refused() -> None:
    setup, teacher, *_ = case()
    longer = dataclasses.replace(teacher, potential=potential().replace(cutoff=5.0))
    with pytest.raises(ValueError, match="5 Å"):
        run_compiled(setup, longer, 1)


def test_round_config_refuses_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="train_steps must be at least 1, found 0"):
        RoundConfig(train_steps=0)
    assert CONFIG.train_steps == 3
