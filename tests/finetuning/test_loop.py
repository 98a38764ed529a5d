"""The compiled loop and the host loop: equal to each other, differentiable, mappable, and exact after a kill."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import CONFIG, atoms, case, molecule, potential, start

from mlipjax.finetuning import FineTuneState, RoundConfig, run_compiled, run_rounds
from mlipjax.finetuning.frames import draw_batch, draw_frames, frame_graphs, stack_buffer
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.pieces import Stopped, frame_at
from mlipjax.finetuning.records import round_rows, with_energy_shifts
from mlipjax.graph import batch_graphs
from mlipjax.models import load
from mlipjax.oracles import Labeller, Teacher
from mlipjax.system import System


def leaves(state: FineTuneState) -> list[np.ndarray]:
    return [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(
            (state.train.params, [(system.buffer, system.sim.dynamics.position) for system in state.systems])
        )
    ]


STRUCTURES = {"one": [atoms()], "two": [atoms(), molecule()]}
"""Systems of a run: one, or two of different sizes, compositions and periodicities."""


@pytest.fixture(scope="module", params=STRUCTURES)
def compiled(request):
    structures = STRUCTURES[request.param]
    setup, teacher, params, controls = case(structures=structures)
    run = jax.jit(run_compiled(setup, teacher, 2))
    return run, setup, teacher, params, controls, functools.partial(start, structures=structures)


@pytest.mark.slow
def test_compiled_loop_labels_and_learns(compiled) -> None:
    run, setup, teacher, params, controls, start = compiled
    state, info = run(start(setup, params, controls), controls)
    assert int(state.round) == 2
    assert bool(info.train_finite.all())
    for system, found in zip(state.systems, info.systems, strict=True):
        assert bool(found.md_valid.all() & found.md_good.all())
        assert int(system.buffer.count) == 8
        assert bool(system.buffer.labelled.all())
        assert np.asarray(system.buffer.round).tolist() == [0] * 4 + [1] * 4
        assert found.temperature.shape == (2, 2, 6)
    changed = [
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state.train.params, params)), strict=True)
    ]
    assert all(changed)
    # the labels are the teacher's, for the frames in the buffer
    for own, system in zip(setup.systems, state.systems, strict=True):
        frame = frame_at(own.spec, system, 5)
        labels, stored = teacher.label(frame), system.buffer.labels
        np.testing.assert_allclose(stored.forces[5], labels.forces, atol=1e-10)
        reference = setup.potential.reference_energy(frame.atomic_numbers)
        np.testing.assert_allclose(stored.energy[5], labels.energy - reference, atol=1e-9)


@pytest.mark.slow
def test_host_loop_equals_compiled_loop(compiled, tmp_path) -> None:
    run, setup, teacher, params, controls, start = compiled
    expected, info = run(start(setup, params, controls), controls)
    with Labeller(teacher, tmp_path / "labels.db") as labeller:
        result = HostLoop(setup, labeller, controls, tmp_path).run(start(setup, params, controls), 2)
    rounds = run_rounds(setup, teacher, controls, start(setup, params, controls), 2)
    for found in (result.state, rounds.state):
        for a, b in zip(leaves(found), leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    for history in (result.history, rounds.history):
        losses = [loss for record in history if record["stage"] == "train" for loss in record["loss"]]
        np.testing.assert_allclose(losses, np.asarray(info.loss).reshape(-1), rtol=1e-6)
    for ours, other in zip(round_rows(rounds.history), round_rows(result.history), strict=True):
        numbers, expected_numbers = (np.array(jax.tree.leaves(row), float) for row in (ours, other))
        np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-6, atol=1e-6)
        assert jax.tree.structure(ours) == jax.tree.structure(other)


@pytest.mark.slow
def test_host_loop_resumes_bit_for_bit_after_any_piece(compiled, tmp_path) -> None:
    _, setup, teacher, params, controls, start = compiled

    class Killed(Exception):
        pass

    @dataclasses.dataclass
    class KillAfter:
        pieces: int

        def __call__(self, piece) -> None:
            self.pieces -= piece.record is not None
            if self.pieces == 0:
                raise Killed

    def loop(folder, on_piece=lambda piece: None) -> FineTuneState:
        with Labeller(teacher, folder / "labels.db") as labeller:
            return HostLoop(setup, labeller, controls, folder, on_piece).run(start(setup, params, controls), 2).state

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
    for a, b in zip(leaves(state), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    for number in (1, 2):
        models = [load(tmp_path / run / f"model_{number}") for run in ("killed", "whole")]
        for a, b in zip(*(jax.tree.leaves(model.params) for model in models), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_seeds_under_vmap_equal_separate_runs(compiled) -> None:
    run, setup, _, params, controls, start = compiled
    states = [start(setup, params, controls, seed) for seed in range(4)]
    together, _ = jax.jit(jax.vmap(run, in_axes=(0, None)))(jax.tree.map(lambda *x: jnp.stack(x), *states), controls)
    for i, state in enumerate(states):
        alone, _ = run(state, controls)
        for a, b in zip(leaves(jax.tree.map(lambda x, i=i: x[i], together)), leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_gradient_through_two_rounds_matches_central_differences(compiled) -> None:
    run, setup, teacher, params, controls, start = compiled
    rng = np.random.default_rng(0)
    held_out = []
    for structure in (atoms, molecule, atoms):
        frame = structure()
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
    labelled = jnp.array([True, False, True, True, False, True, True, False])
    drawn = [draw_frames(jax.random.key(0), jnp.asarray(step), labelled, 2) for step in range(5)]
    epochs = np.concatenate(drawn).reshape(2, 5)
    assert all(sorted(epoch) == [0, 2, 3, 5, 6] for epoch in epochs.tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_holds_frames_of_all_systems_as_if_they_were_put_together_on_the_host() -> None:
    setup, _, params, controls = case(structures=STRUCTURES["two"])
    state = start(setup, params, controls, structures=STRUCTURES["two"])
    stacks, systems = [], []
    for own, system in zip(setup.systems, state.systems, strict=True):
        moved = system.buffer.position.at[1].add(0.01 * jnp.arange(own.n_atoms)[:, None])
        system = dataclasses.replace(system, buffer=system.buffer.replace(position=moved, labelled=jnp.arange(8) < 2))
        graphs = frame_graphs(own.spec, system, jnp.arange(8))
        stacks.append(stack_buffer(2, system, graphs, 3.0))
        systems += [frame_at(own.spec, system, slot) for slot in (0, 1)]
    batch = draw_batch(stacks, jax.random.key(0), jnp.asarray(0))
    found = setup.potential.apply(params, batch.graph)
    expected = setup.potential.apply(params, batch_graphs(systems, 3.0, dtype=np.float64))
    np.testing.assert_allclose(np.sort(found.energy), np.sort(expected.energy[:4]), rtol=1e-12)
    assert batch.graph.positions.shape == (2 * 6 + 2 * 4, 3)
    force = np.linalg.norm(expected.forces[:20], axis=1)
    np.testing.assert_allclose(np.sort(np.linalg.norm(found.forces, axis=1)), np.sort(force), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(batch.labels.energy_weight, 0.0)  # nothing is labelled yet


def test_energy_zeros_are_what_constants_per_element_explain() -> None:
    setup, *_ = case(structures=[atoms(), atoms(), molecule()])
    np.testing.assert_array_equal(setup.counts, [[4, 2], [4, 2], [2, 2]])
    # equal compositions share their mean, whatever it is; another one is free
    np.testing.assert_allclose(setup.explained @ [1.0, 3.0, 7.0], [2.0, 2.0, 7.0], atol=1e-12)
    only, *_ = case()
    assert only.explained.tolist() == [[1.0]]
    moved = with_energy_shifts(setup.potential, setup.counts, np.array([2.0, 2.0, 7.0]))
    shifts = moved.e0s - setup.potential.e0s
    np.testing.assert_allclose(setup.counts @ shifts[0], [2.0, 2.0, 7.0], atol=1e-12)


class NoMolecules(Teacher):
    """Fails for the second system."""

    def label(self, system):
        if system.n_atoms == 4:
            raise RuntimeError("did not converge")
        return super().label(system)


@pytest.mark.slow
def test_a_system_without_any_label_has_no_energy_zero_to_estimate(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, estimate_shift=True)
    setup, teacher, params, controls = case(config, structures=STRUCTURES["two"])
    fails = NoMolecules(teacher.potential, teacher.params)
    state = start(setup, params, controls, structures=STRUCTURES["two"])
    with Labeller(fails, tmp_path / "labels.db") as labeller:
        with pytest.raises(Stopped, match="no label of system 1 succeeded"):
            HostLoop(setup, labeller, controls, tmp_path).run(state, 1)
        assert labeller.counts.computed == 4


def test_oracle_with_longer_reach_is_refused() -> None:
    setup, teacher, *_ = case()
    longer = dataclasses.replace(teacher, potential=potential().replace(cutoff=5.0))
    with pytest.raises(ValueError, match="5 Å"):
        run_compiled(setup, longer, 1)


def test_round_config_refuses_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="train_steps must be at least 1, found 0"):
        RoundConfig(train_steps=0)
    assert CONFIG.train_steps == 3
