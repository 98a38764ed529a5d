"""Laws where JAX sees four devices; ``test_devices.py`` runs this file in a process that does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning import loop_case
from labelled_files import labelled, model, rock_salts
from md.pair_potential import argon, argon_spec, pair_potential
from train import multitask_case

from mlipjax import md
from mlipjax.devices import SHARE, WHOLE, device_count, device_mesh, mesh_of_parts, over_devices, put
from mlipjax.finetuning import run_compiled
from mlipjax.finetuning.committee import train_members
from mlipjax.finetuning.frames import frame_graphs
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.round import mesh_of_batches, train_frames
from mlipjax.finetuning.sample import sample_frame
from mlipjax.finetuning.single import prepare
from mlipjax.md.advance import run_chunk
from mlipjax.md.gate import default_limits
from mlipjax.oracles import Labeller
from mlipjax.potential import Model
from mlipjax.probes.evaluator import NativeEvaluator
from mlipjax.settings import FinetuneSettings
from mlipjax.train import LabelledBatches, Mixture, train
from mlipjax.train.tasks import compiled_gradient, divided_gradient, shares_together
from mlipjax.verbs import predict

LANGEVIN = md.Langevin(5.0, 60.0, 20.0)
NPT = md.IsotropicNPT(5.0, 60.0, 1000.0, 150.0, 600.0)
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def on_one(function, *arguments, **options):
    with jax.default_device(jax.devices()[0]):
        return function(*arguments, **options)


def collectives(compiled):
    """How often a compiled program starts each exchange between devices."""
    lines = [line for line in compiled.as_text().splitlines() if " = " in line]
    found = {name: sum(f" {name}(" in line or f" {name}-start(" in line for line in lines) for name in COLLECTIVES}
    return {name: count for name, count in found.items() if count}


def close(first, second, rtol=1e-9, atol=1e-11):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def test_as_many_devices_are_taken_as_divide_the_parts():
    assert jax.device_count() == 4
    taken = {parts: device_count(device_mesh(parts)) for parts in (0, 1, 2, 3, 4, 6, 7, 8, 9)}
    assert taken == {0: 4, 1: 1, 2: 2, 3: 3, 4: 4, 6: 3, 7: 1, 8: 4, 9: 3}
    assert on_one(device_mesh) is None


def test_no_more_devices_are_taken_than_are_of_use():
    taken = {parts: device_count(mesh_of_parts(parts)) for parts in (1, 2, 3, 4, 5, 8, 9)}
    assert taken == {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 8: 4, 9: 3}
    potential, data = model().potential, labelled(rock_salts(12))
    meshes = {size: LabelledBatches.create(potential, data, size).mesh for size in (1, 2, 3, 4, 12)}
    assert {size: device_count(mesh) for size, mesh in meshes.items()} == {1: 1, 2: 2, 3: 3, 4: 4, 12: 4}
    # single structures one after the other, as memory wants it, still are four at a time
    assert device_count(LabelledBatches.create(potential, data, 4, max_slots=1).mesh) == 4


def test_tasks_of_a_mixture_share_the_devices_of_the_largest():
    multitask_case.training.cache_clear()
    tasks = multitask_case.training("sum").mixture.tasks
    small, large = (device_mesh(parts) for parts in (2, 4))
    made = [
        dataclasses.replace(task, batches=dataclasses.replace(task.batches, mesh=mesh))
        for task, mesh in zip(tasks, (small, large), strict=True)
    ]
    assert {task.batches.mesh for task in Mixture(tuple(made)).tasks} == {large}


def simulate(ensemble, n_steps, folder=None, n_replicas=8):
    files = {} if folder is None else {"trajectory": folder / "t.extxyz", "checkpoint": folder / "t.npz"}
    potential, params = pair_potential()
    options = {"key": jax.random.key(7), "frame_every": 5, "chunk_steps": 10, "spec": argon_spec()}
    return md.run(
        Model(potential, params), md.Start(argon()), ensemble, n_steps, n_replicas=n_replicas, **options, **files
    )


@pytest.mark.parametrize("ensemble", [LANGEVIN, NPT], ids=["langevin", "npt"])
def test_replicas_move_as_on_one_device(ensemble):
    several, one = simulate(ensemble, 30), on_one(simulate, ensemble, 30)
    assert several.state.dynamics.position.sharding.num_devices == 4
    close(several.state.dynamics.set(rng=None), one.state.dynamics.set(rng=None))
    assert several.statistics.averages().keys() == one.statistics.averages().keys()


def test_a_run_goes_on_with_another_number_of_devices(tmp_path):
    simulate(LANGEVIN, 15, tmp_path)
    assert on_one(simulate, LANGEVIN, 25, tmp_path).resumed_from == 15
    parts = simulate(LANGEVIN, 40, tmp_path)
    assert parts.resumed_from == 25
    close(parts.state.dynamics.set(rng=None), simulate(LANGEVIN, 40).state.dynamics.set(rng=None))


def test_a_chunk_of_replicas_needs_no_word_between_devices():
    potential, params = pair_potential()
    start = md.init(Model(potential, params), argon_spec(), md.Start(argon()), LANGEVIN, jax.random.key(0), 8)
    arguments = (params, start, LANGEVIN, default_limits(60.0, argon().n_atoms))
    lowered = run_chunk.lower(potential, argon_spec(), 10, 5, *arguments, mesh=device_mesh(8))
    assert collectives(lowered.compile()) == {}


def batch_case():
    run = multitask_case.training("sum")
    drawn = [next(task.steps(0)) for task in run.mixture.tasks]
    return run, drawn


@pytest.mark.parametrize("turn", [0, 1], ids=["property", "force field"])
def test_a_gradient_of_shares_is_that_of_one_device_and_one_sum(turn):
    multitask_case.training.cache_clear()
    run, drawn = batch_case()
    one, mesh = drawn[turn], run.mixture.mesh
    assert mesh.size == 4
    shared = (one.task.prefactors, one.counts, 0)
    whole = [compiled_gradient(one.task.objective, run.optimizer, run.state.params, p, *shared) for p in one.parts]
    expected = jax.tree.map(lambda *leaves: sum(leaves), *whole)
    stacked = next(shares_together(one.parts, mesh))
    arguments = (one.task.objective, run.optimizer, run.state.params, stacked, *shared)
    close(divided_gradient(mesh, *arguments), expected)
    n_arrays = len(jax.tree.leaves(expected))
    found = collectives(divided_gradient.lower(mesh, *arguments).compile())
    # one sum, which compilers may leave as one of each array
    assert set(found) == {"all-reduce"}
    assert found["all-reduce"] <= n_arrays


@pytest.mark.parametrize("kind", ["draw", "sum"])
def test_training_gives_the_records_of_one_device(kind):
    multitask_case.training.cache_clear()
    several, records = train(multitask_case.training(kind))
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(several.params)} == {1}
    multitask_case.training.cache_clear()
    one, expected = on_one(lambda: train(multitask_case.training(kind)))
    close(several.params, one.params, rtol=1e-7)
    for record, other in zip(records, expected, strict=True):
        assert record["train_loss"] == pytest.approx(other["train_loss"], rel=1e-9)


def test_training_goes_on_with_another_number_of_devices(tmp_path):
    multitask_case.training.cache_clear()
    whole = train(multitask_case.training())[0]
    begun = multitask_case.training()
    short = dataclasses.replace(begun, config=dataclasses.replace(begun.config, steps=4))
    train(short, folder=tmp_path)
    multitask_case.training.cache_clear()
    parts = on_one(lambda: train(multitask_case.training(), folder=tmp_path))[0]
    assert int(parts.step) == 12
    close(parts.params, whole.params, rtol=1e-7)


def test_structures_are_evaluated_as_on_one_device():
    systems = rock_salts(10)
    evaluate = NativeEvaluator(model())
    for found, expected in zip(evaluate(systems), on_one(evaluate, systems), strict=True):
        np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-12)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)
        np.testing.assert_allclose(found.stress, expected.stress, atol=1e-11)


def test_predictions_of_a_batch_are_divided():
    structures = [system.to_ase() for system in rock_salts(11)]
    several = predict(model(), structures, batch_size=6, features=True)
    one = on_one(predict, model(), structures, batch_size=6, features=True)
    for found, expected in zip(several, one, strict=True):
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_allclose(found.get_potential_energy(), expected.get_potential_energy(), rtol=1e-6)
        np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=1e-4)
        np.testing.assert_allclose(found.arrays["features"], expected.arrays["features"], atol=1e-5)


def members():
    settings = FinetuneSettings(epochs=2, batch_size=4, dtype="float64", ignore=("step-0",), allow_e0_mismatch=True)
    ready = prepare(model(), labelled(rock_salts(12)), None, settings)
    return train_members(ready, settings, 3)


def test_members_of_a_committee_are_divided():
    for found, expected in zip(members(), on_one(members), strict=True):
        close(found.params, expected.params, rtol=1e-5, atol=1e-6)


def loop_on_the_host(folder, n_rounds):
    setup, teacher, params, controls = loop_case.case()
    folder.mkdir(exist_ok=True)
    with Labeller(teacher, folder / "labels.db") as labeller:
        begin = loop_case.start(setup, params, controls)
        return HostLoop(setup, labeller, controls, folder).run(begin, n_rounds).state


def test_the_loop_goes_on_with_another_number_of_devices(tmp_path):
    """Two replicas on two devices, two frames a batch on two."""
    one = on_one(loop_on_the_host, tmp_path / "one", 2)
    several = loop_on_the_host(tmp_path / "several", 2)
    on_one(loop_on_the_host, tmp_path / "parts", 1)
    for state in (several, loop_on_the_host(tmp_path / "parts", 2)):
        assert int(state.round) == 2
        close(state.train.params, one.train.params, rtol=1e-6, atol=1e-9)
        close(state.systems[0].buffer.position, one.systems[0].buffer.position)
        close(state.systems[0].buffer.labels, one.systems[0].buffer.labels, rtol=1e-6)


def test_a_piece_of_the_loop_has_the_sums_of_its_gradients_and_nothing_else():
    setup, _, params, controls = loop_case.case()
    state, own = loop_case.start(setup, params, controls), setup.systems[0]
    mesh = mesh_of_batches(setup, controls)
    assert mesh.size == 2
    graphs = [frame_graphs(own.spec, state.systems[0], jnp.arange(loop_case.CAPACITY))]
    train = jax.jit(train_frames, static_argnums=(0, 4, 5)).lower(setup, state, graphs, controls, 3, mesh)
    assert set(collectives(train.compile())) == {"all-reduce"}
    move = jax.jit(sample_frame, static_argnums=0, static_argnames="mesh")
    arguments = (params, state.systems[0], controls.systems[0], state.round)
    sample = move.lower(setup, *arguments, mesh=mesh).compile()
    # frames of all replicas go into one buffer
    assert set(collectives(sample)) <= {"all-gather"}


def test_seeds_of_the_compiled_loop_are_divided():
    setup, teacher, params, controls = loop_case.case()
    states = [loop_case.start(setup, params, controls, seed=seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    seeds = jax.vmap(run_compiled(setup, teacher, 1), in_axes=(0, None))
    program = jax.jit(over_devices(seeds, device_mesh(4), (SHARE, WHOLE), SHARE)).lower(stacked, controls).compile()
    assert collectives(program) == {}
    together, _ = program(put(stacked, device_mesh(4), SHARE), put(controls, device_mesh(4), WHOLE))
    expected, _ = jax.jit(seeds)(stacked, controls)
    close(together.train.params, expected.train.params, rtol=1e-6, atol=1e-9)
