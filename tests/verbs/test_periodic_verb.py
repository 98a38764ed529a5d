"""A periodic fine-tune by one call: the same numbers with and without a folder, exact after a kill, honest refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from finetuning.loop_case import atoms, molecule, potential

import mlipjax
from mlipjax.finetuning import PeriodicListener, PeriodicSettings
from mlipjax.finetuning.folder import hash_model
from mlipjax.oracles import Teacher
from mlipjax.settings import SystemSettings
from mlipjax.system import System
from mlipjax.tree import flatten_paths

SETTINGS = PeriodicSettings(
    rounds=2, labels_per_round=2, steps=4, train_steps=3, batch_size=2, timestep=0.5, dtype="float64", strategy="llrd"
)
FIXED = 4


def structure() -> Atoms:
    """Two water molecules in a cell, one atom of them fixed."""
    found = atoms()
    found.positions += 1.0  # no atom leaves the cell: what is fixed can be compared bit for bit
    found.set_constraint(FixAtoms([FIXED]))
    return found


@pytest.fixture(scope="module")
def models():
    """The student, and a teacher whose isolated atoms are 1 and 2 eV higher."""
    student = potential()
    params = [student.init(jax.random.key(seed), np.float64) for seed in range(2)]
    return (student, params[0]), Teacher(student.replace(e0s=student.e0s + np.array([1.0, 2.0])), params[1])


@pytest.fixture(scope="module")
def straight(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    return out, mlipjax.periodic(models[0], structure(), oracle=models[1], settings=SETTINGS, out=out)


def rows(result):
    return np.array(jax.tree.leaves(result.report["rounds"]), float)


@pytest.mark.slow
def test_with_and_without_a_folder_the_numbers_are_the_same(models, straight):
    _, kept = straight
    compiled = mlipjax.periodic(models[0], structure(), oracle=models[1], settings=SETTINGS)
    for a, b in zip(jax.tree.leaves(kept.model.params), jax.tree.leaves(compiled.model.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    assert len(compiled.frames) == len(kept.frames) == 4
    for (system, labels, info), other in zip(compiled.frames, kept.frames, strict=True):
        np.testing.assert_allclose(system.positions, other.system.positions, atol=1e-9)
        np.testing.assert_allclose(labels.forces, other.labels.forces, atol=1e-8)
        assert float(labels.energy) == pytest.approx(float(other.labels.energy), abs=1e-6)
        assert info["round"] == other.info["round"]
    np.testing.assert_allclose(rows(compiled), rows(kept), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_labels_are_the_oracles_and_the_model_takes_over_its_zero(models, straight):
    (student, _), teacher = models
    _, result = straight
    frames = result.frames
    for system, labels, _ in frames:
        expected = teacher.label(system)
        np.testing.assert_allclose(labels.forces, expected.forces, atol=1e-10)
        assert float(labels.energy) == pytest.approx(float(expected.energy), abs=1e-9)
    first = result.report["rounds"][0]
    assert first["energy_mean_meV_per_atom"] == pytest.approx(0.0, abs=1e-6)
    assert first["labels_before"] == 0
    # 4 H and 2 O: 8 eV besides what the two models differ by
    numbers = atoms().numbers
    moved = result.model.potential.reference_energy(numbers) - student.reference_energy(numbers)
    assert moved == pytest.approx(result.report["systems"][0]["energy_shift_eV"], rel=1e-9)
    assert moved == pytest.approx(8.0, abs=2.0)
    # the errors of the second round are those of the model that the first one made
    out, _ = straight
    made = mlipjax.load(out / "model_1")
    own = frames.subset([i for i, info in enumerate(frames.infos) if info["round"] == 2])
    report = mlipjax.evaluate(made, own, dtype="float64")
    for name in ("energy_mean_meV_per_atom", "energy_std_meV_per_atom", "force_rmse_meV_per_A"):
        assert result.report["rounds"][1][name] == pytest.approx(report[name], rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_fixed_atoms_stay_where_they_are_and_others_do_not(straight):
    start = structure().positions
    for system in straight[1].frames.systems:
        np.testing.assert_array_equal(system.positions[FIXED], start[FIXED])
        moved = np.abs(system.positions - start).max(axis=1)
        assert np.all(np.delete(moved, FIXED) > 1e-6)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_same_bits_and_a_done_one_is_only_read(models, straight, tmp_path):
    class Killed(Exception):
        pass

    class KillAfter(PeriodicListener):
        def __init__(self, pieces):
            self.left = pieces

        def piece(self, piece):
            self.left -= piece.record is not None
            if self.left == 0:
                raise Killed

    def call(listener=None, settings=SETTINGS):
        return mlipjax.periodic(
            models[0], structure(), oracle=models[1], settings=settings, out=tmp_path, listener=listener
        )

    with pytest.raises(Killed):
        call(KillAfter(3))
    with pytest.raises(Killed):
        call(KillAfter(4))
    result = call()
    out, expected = straight
    assert hash_model(result.model) == hash_model(expected.model)
    assert (tmp_path / "frames.extxyz").read_bytes() == (out / "frames.extxyz").read_bytes()
    others = {"versions": None, "preflight": None}  # how long things took
    for report in (expected.report, json.loads((out / "results.json").read_text())):
        assert {**report, **others} == {**result.report, **others}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = call()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert again.report == result.report
    assert again.history == result.history
    with pytest.raises(ValueError, match="holds another run: seed was 0, now 1"):
        call(settings=dataclasses.replace(SETTINGS, seed=1))


@pytest.mark.slow
def test_a_run_that_is_done_goes_on_for_more_rounds_as_if_it_had_been_asked_for_them(models, straight, tmp_path):
    out, expected = straight
    short = dataclasses.replace(SETTINGS, rounds=1)

    def call(settings):
        return mlipjax.periodic(models[0], structure(), oracle=models[1], settings=settings, out=tmp_path)

    first = call(short)
    assert (len(first.frames), first.report["status"], len(first.report["rounds"])) == (2, "done", 1)
    longer = call(SETTINGS)
    assert hash_model(longer.model) == hash_model(expected.model)
    assert (tmp_path / "frames.extxyz").read_bytes() == (out / "frames.extxyz").read_bytes()
    assert longer.report["rounds"] == expected.report["rounds"]
    assert call(SETTINGS).report == longer.report
    with pytest.raises(ValueError, match="the run has done 2 rounds; found rounds=1"):
        call(short)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "with_data"),
    [
        ({"strategy": "lora", "lora_rank": 1}, False),
        ({"strategy": "pseudo-replay", "replay_size": 6}, True),
        ({"strategy": "ewc", "e0s": "estimate"}, True),
        ({"strategy": "l2sp"}, False),
    ],
)
def test_strategies_and_frames_from_before(models, straight, tmp_path, settings, with_data):
    student, teacher = models
    rng = np.random.default_rng(0)
    frames = []
    for atoms_of in (molecule, atoms, molecule):
        frame = atoms_of()
        frame.rattle(0.05, rng=rng)
        labels = teacher.label(System.from_ase(frame))
        frame.calc = SinglePointCalculator(frame, energy=float(labels.energy), forces=np.asarray(labels.forces))
        frames.append(frame)
    settings = dataclasses.replace(SETTINGS, rounds=1, layer_decay=None, **settings)
    result = mlipjax.periodic(
        student, structure(), oracle=teacher, settings=settings, data=frames if with_data else (), out=tmp_path / "run"
    )
    potential, params = result.model
    assert potential.heads[:1] == student[0].heads[:1]
    assert len(potential.heads) == 1 + (settings.strategy == "pseudo-replay")
    # what is saved has no adapters, and is what was trained
    assert set(flatten_paths(student[1])) <= set(flatten_paths(params))
    moved = [not np.array_equal(params_of, flatten_paths(student[1])[path])
             for path, params_of in flatten_paths(params).items() if path in flatten_paths(student[1])]  # fmt: skip
    assert any(moved)
    report = result.report["preflight"]
    assert report["n_given"] == 3 * with_data
    assert (report["n_replayed"] > 0) == (settings.strategy == "pseudo-replay")
    if with_data:
        # 1 and 2 eV between isolated atoms are taken off before the first step
        assert report["before"]["energy_mean_meV_per_atom"] == pytest.approx(0.0, abs=100.0)
        assert result.report["systems"][0]["energy_shift_eV"] == 0.0
        assert abs(result.report["rounds"][0]["energy_mean_meV_per_atom"]) < 100.0


@pytest.mark.slow
def test_every_structure_is_simulated_at_each_temperature_but_those_with_their_own(models):
    class Enough(Exception):
        pass

    class Listener(PeriodicListener):
        def start(self, plan):
            raise Enough([own.settings.temperature for own in plan.systems])

    other = SystemSettings(structure=molecule(), temperature=500.0)
    with pytest.raises(Enough) as found:
        mlipjax.periodic(
            models[0],
            structure(),
            oracle=models[1],
            systems=[other],
            settings=dataclasses.replace(SETTINGS, temperature=(200.0, 400.0)),
            listener=Listener(),
        )
    assert found.value.args[0] == [200.0, 400.0, 500.0]


def test_an_oracle_that_sees_further_than_the_model_is_asked_on_the_host(models):
    student, teacher = models
    # compiled rounds hold no pairs beyond the student's 3 Å, and refuse
    further = dataclasses.replace(teacher, potential=teacher.potential.replace(cutoff=4.5))
    settings = dataclasses.replace(SETTINGS, rounds=1)
    result = mlipjax.periodic(student, structure(), oracle=further, settings=settings)
    for system, labels, _ in result.frames:
        np.testing.assert_allclose(labels.forces, further.label(system).forces, atol=1e-9)


def bad_constraint():
    from ase.constraints import FixBondLength

    found = atoms()
    found.set_constraint(FixBondLength(0, 1))
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": Atoms("XeH", [[0, 0, 0], [0, 0, 2]])}, "the structure: this potential does not know Xe"),
        ({"structure": "absent.xyz"}, "absent.xyz: no such file"),
        ({"structure": bad_constraint()}, "the structure: the constraint FixBondLength"),
        ({"oracle": "txb"}, "unknown oracle 'txb'; expected xtb"),
        ({"oracle": "ase:no.module:f"}, "cannot import 'no.module'"),
        ({"model": "ase:ase.calculators.lj:LennardJones"}, "is a foreign calculator"),
        ({"settings": {"labels_per_round": 3, "replicas": 2}}, "labels_per_round=3 must be a multiple of replicas=2"),
        ({"settings": {"ensemble": "npt"}, "structure": structure()}, "1 atoms are fixed, which a cell that moves"),
        ({"settings": {"strategy": "lora", "l2sp": 1.0}}, "strategy 'lora' has no option l2sp"),
        ({"settings": {"strategy": "replay"}}, "strategy 'replay' needs structures with true labels"),
        ({"settings": {"strategy": "ewc"}}, "ewc weighs parameters by what labelled frames say of them"),
        ({"settings": {"e0s": "isolated"}}, "takes the energies of isolated atoms among frames from before"),
        ({"settings": {"e0s": "absent.json"}}, "absent.json: no such file"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_leaves_nothing(models, tmp_path, changes, message):
    settings = PeriodicSettings(**changes.get("settings", {}))
    given, oracle = (
        (changes.get("model", models[0]), changes.get("structure", atoms())),
        changes.get("oracle", models[1]),
    )
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mlipjax.periodic(*given, oracle=oracle, settings=settings, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, found 0"),
        ({"temperature": -3.0}, "temperature must be positive, found -3.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, found nan"),
        ({"strategy": "scratch"}, "strategy is 'scratch'; choose one of naive, freeze"),
        ({"l2sp": -1.0, "lora_rank": 3, "batch_size": 0}, "batch_size must be at least 1"),
        ({"on_alarm": "panic"}, "on_alarm is 'panic'; choose one of off, ignore"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PeriodicSettings(**settings)


def test_something_else_than_a_structure_is_refused(models):
    with pytest.raises(TypeError, match=r"starts from ase\.Atoms or a file, found int"):
        mlipjax.periodic(models[0], [atoms(), 3], oracle=models[1])
    with pytest.raises(ValueError, match="needs a structure to start from"):
        mlipjax.periodic(models[0], oracle=models[1])
