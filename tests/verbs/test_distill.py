"""A distillation by one call: labels once, groups apart, exact after a kill, a report that says what was found."""

import json

import jax
import numpy as np
import pytest
from ase.build import bulk, molecule
from finetuning.loop_case import atoms, potential

import mlipjax
from mlipjax.cli.main import main
from mlipjax.data import Dataset, Example, read_dataset
from mlipjax.oracles import LabelStore
from mlipjax.probes import NativeEvaluator, equation_of_state
from mlipjax.report.distill import distill_verdict
from mlipjax.settings import SamplingSettings
from mlipjax.system import Labels, System
from mlipjax.tree import flatten_paths
from mlipjax.verbs.distill import DistillListener
from mlipjax.verbs.inputs import open_native
from mlipjax.verbs.sampled import Sampler, generated
from mlipjax.verbs.student import Pair, make_student

TINY = {"hidden_irreps": "2x0e + 1x1o", "n_layers": 1, "lmax": 1, "cutoff": 3.0, "radial_hidden": [4]}
SHORT = {
    "temperatures": (300.0,), "trajectories": 2, "frames": 2, "frame_spacing": 1.0, "rattles": 2, "epochs": 2,
    "test_ps": 0.01, "products": 2,
}  # fmt: skip
N = 3 + 3 * 2 + 2 * 2


@pytest.fixture(scope="module")
def teacher():
    """A tiny potential whose isolated atoms are 1 and 2 eV high."""
    found = potential()
    return found.replace(e0s=found.e0s + np.array([1.0, 2.0])), found.init(jax.random.key(1), np.float64)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    file = tmp_path_factory.mktemp("student") / "tiny.json"
    file.write_text(json.dumps(TINY))
    return file


def structures():
    """Three starts, which differ."""
    found = []
    for seed in range(3):
        found.append(atoms())
        found[-1].rattle(0.05, seed=seed)
    return found


def labelled():
    systems = [System.from_ase(frame) for frame in structures()]
    forces = np.full((systems[0].n_atoms, 3), 0.5)
    return Dataset.from_examples(Example(s, Labels.create(s.n_atoms, -1.0, forces), {}) for s in systems)


@pytest.fixture(scope="module")
def straight(teacher, student, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    return out, mlipjax.distill(teacher, structures(), student=student, out=out, **SHORT)


@pytest.mark.slow
def test_labels_are_the_teachers_and_groups_stay_together(teacher, straight):
    out, found = straight
    data = read_dataset(out / "labelled")
    assert len(data) == found.report["n_labelled"] == N
    assert {info["kind"] for info in data.infos} == {
        "given", "rattled 0", "rattled 1", "300 K, run 0", "300 K, run 1"
    }  # fmt: skip
    # every structure is one of three families, each whole in one part
    assert {info["trajectory"] for info in data.infos} == {"structure 0", "structure 1", "structure 2"}
    assert "(1 / 1 / 1 groups)" in found.report["split"]
    errors = mlipjax.evaluate(teacher, data)
    assert errors["force_rmse_meV_per_A"] < 1e-2
    assert errors["energy_rmse_meV_per_atom"] < 1e-2


@pytest.mark.slow
def test_the_report_holds_what_was_measured(straight):
    out, found = straight
    report = json.loads((out / "report.json").read_text())
    assert report == found.report
    assert report["labels"]["computed"] == N + sum(run["n_frames"] for run in report["dynamics"])
    assert report["speed"]["ratio"] == pytest.approx(
        report["speed"]["microseconds_per_atom_step"]["teacher"]
        / report["speed"]["microseconds_per_atom_step"]["student"]
    )
    assert [run["temperature_K"] for run in report["dynamics"]] == [300.0, 450.0, 600.0]
    assert set(report["test"]["per_element"]) == {"H", "O"}
    page = (out / "report.html").read_text()
    for words in ("Dynamics of the student", "µs per atom and step", "mlipjax finetune --model"):
        assert words in page
    assert report["training"]["after"]["n_hvp"] > 0
    loaded = mlipjax.load(out / "student")
    assert loaded.potential.cutoff == TINY["cutoff"]


class Killer(DistillListener):
    """Ends the run at the n-th piece of work of a kind."""

    def __init__(self, what, n):
        self.what, self.left = what, n

    def work(self, what, done, total):
        self.left -= what == self.what
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_killed_anywhere_the_same_call_goes_on_and_labels_nothing_twice(teacher, student, straight, tmp_path):
    whole, options = straight[1], {"student": student, "out": tmp_path / "run", **SHORT}
    for what, n in (("molecular dynamics", 2), ("labels", 1), ("Hessian products", 1), ("dynamics of the student", 2)):
        with pytest.raises(KeyboardInterrupt):
            mlipjax.distill(teacher, structures(), listener=Killer(what, n), **options)
    known = len(LabelStore(tmp_path / "run" / "labels.db"))
    found = mlipjax.distill(teacher, structures(), **options)
    # the store refuses a label under a key that it has
    assert len(LabelStore(tmp_path / "run" / "labels.db")) == known + found.report["labels"]["computed"]
    # of the tests, those at the temperatures after the first
    assert (known, found.report["labels"]["computed"]) == (N + 20, 40)
    for path, leaf in flatten_paths(whole.params).items():
        assert np.array_equal(leaf, flatten_paths(found.params)[path]), path
    assert found.report["test"] == whole.report["test"]
    # a run that is done is only read
    assert mlipjax.distill(teacher, structures(), listener=Killer("labels", 1), **options).report == found.report


@pytest.mark.slow
def test_another_run_is_refused_and_by_the_command_line_it_is_the_same(teacher, student, tmp_path, capsys):
    mlipjax.save(tmp_path / "teacher", *teacher)
    from ase.io import write

    write(tmp_path / "starts.extxyz", structures())
    line = ["distill", "--teacher", str(tmp_path / "teacher"), "--structures", str(tmp_path / "starts.extxyz")]
    line += ["--student", str(student), "--out", str(tmp_path / "run"), "--rattles", "1", "--epochs", "1"]
    line += ["--temperatures", "300", "--trajectories", "1", "--frames", "1", "--frame-spacing", "1"]
    assert main([*line, "--test-ps", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "errors against the teacher on test structures" in out
    assert f"student saved in {tmp_path / 'run' / 'student'}" in out
    assert main([*line, "--test-ps", "0.02"]) == 1
    assert "holds another run: --test-ps was 0.01, now 0.02" in capsys.readouterr().err


def test_copies_are_drawn_from_the_seed_and_families_have_names(tmp_path):
    starts, sampling = labelled(), SamplingSettings(temperatures=(), rattles=2, rattle=0.1, strain=0.05)

    def sample(seed, starts=starts):
        return list(Sampler(starts, sampling, None, tmp_path, "float32", seed, lambda *told: None))

    first, again, other = sample(0), sample(0), sample(1)
    assert [info for _, info in first] == [info for _, info in again]
    for (a, _), (b, _), (c, info) in zip(first, again, other, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.positions, c.positions) == (info["kind"] == "given")
    # the second copy of the first structure: strained and rattled, by no more than was asked for
    start, copy = first[0][0], first[2][0]
    strain = np.linalg.solve(start.cell, copy.cell) - np.eye(3)
    assert 0.0 < np.abs(strain).max() <= 0.05
    moves = copy.positions - start.positions @ (np.eye(3) + strain)
    assert 0.0 < moves.std() < 0.1 * 1.5
    assert {info["trajectory"] for _, info in first} == {"structure 0", "structure 1", "structure 2"}
    # two families cannot be divided into three parts: each copy is one of its own
    few = sample(0, starts.subset([0, 1]))
    assert len({info["trajectory"] for _, info in few}) == len(few) == 6


def test_trajectories_that_are_given_stay_whole(tmp_path):
    infos = ({"run": "a"}, {"run": "a"}, {"run": "b"}, {"run": "c"})
    data = labelled()
    starts = Dataset((*data.systems, data.systems[0]), (*data.labels, data.labels[0]), infos)
    sampling = SamplingSettings(temperatures=(), rattles=1)
    found = [i["trajectory"] for _, i in Sampler(starts, sampling, None, tmp_path, "float32", 0, lambda *told: None)]
    assert found == ["a", "a", "a", "a", "b", "b", "c", "c"]


def test_structures_are_generated_of_every_element():
    found = generated(SamplingSettings(elements=("Na", "Cl")), 0)
    assert len(found) == 24
    assert found.elements == (11, 17)
    with pytest.raises(ValueError, match="Xx: no such element"):
        generated(SamplingSettings(elements=("Na", "Xx")), 0)
    with pytest.raises(ValueError, match=r"name one at least \(elements\)"):
        generated(SamplingSettings(), 0)


def test_a_new_student_has_the_scale_and_the_isolated_atoms_of_the_data(student):
    found = make_student(student, labelled(), {1: -3.0, 8: -5.0}, 0)
    assert found.potential.species == (1, 8)
    assert found.potential.e0s.tolist() == [[-3.0, -5.0]]
    assert found.potential.config.scale == pytest.approx(0.5)
    assert found.potential.config.avg_n_neighbors > 1.0
    small = make_student("small", labelled(), {}, 0)
    assert (small.potential.cutoff, small.potential.config.n_layers) == (4.5, 3)
    # a model comes with its parameters
    embedded = make_student("universal", labelled(), {}, 0)
    assert embedded.potential.config == mlipjax.load("universal").potential.config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"layers": 3}', "unknown configuration fields layers"),
        ('{"cutoff": -1}', "cutoff"),
        ('{"architecture": "schnet"}', "an architecture among nequip, mace"),
        ("[1]", "expected settings by name"),
    ],
)
def test_settings_of_a_student_that_are_none_are_refused(settings, message, tmp_path):
    file = tmp_path / "odd.json"
    file.write_text(settings)
    with pytest.raises(ValueError, match=message):
        make_student(file, labelled(), {}, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "trajectories, frames, rattles, products must be"),
        ({"temperatures": (-1.0,)}, "temperatures must be positive"),
        ({"test_fraction": 0.0}, "give a fraction between 0 and 1"),
        ({"elements": ("H",)}, "elements are those of generated structures"),
        ({"driver": "ase:ase.calculators.emt:EMT"}, "drives no dynamics here"),
    ],
)
def test_what_cannot_be_honoured_is_one_line(options, message, teacher, tmp_path):
    with pytest.raises(ValueError, match=message):
        mlipjax.distill(teacher, structures(), out=tmp_path / "run", **options)
    assert not (tmp_path / "run" / "labelled").exists()


def test_an_option_that_does_not_exist_is_no_setting(teacher, tmp_path):
    with pytest.raises(TypeError, match="did you mean 'rattles'"):
        mlipjax.distill(teacher, structures(), out=tmp_path / "run", ratles=3)


def test_the_verdict_warns_of_a_student_that_leaves_what_it_knows():
    errors = {"force_rmse_meV_per_A": 40.0, "energy_rmse_meV_per_atom": 1.0, "n_frames": 9}
    run = {"temperature_K": 300.0, "ps": 2.0, "stopped": None, "errors": errors}
    report = {
        "n_labelled": 90, "test": errors, "training": {"steps": 10, "seconds": 60.0}, "dynamics": [run],
        "speed": {"n_atoms": 8, "ratio": 12.34},
    }  # fmt: skip
    text, alarm = distill_verdict(report)
    assert not alarm
    assert "8 atoms is 12.3 times as fast" in text
    assert "at 300 K ran to the end; force errors there are at most 1.00 times" in text
    far = {**run, "errors": {**errors, "force_rmse_meV_per_A": 100.0}}
    text, alarm = distill_verdict({**report, "dynamics": [run, far]})
    assert alarm
    assert "grow 2.5-fold" in text
    text, alarm = distill_verdict({**report, "dynamics": [{**run, "stopped": "hot", "ps": 0.5}], "speed": None})
    assert alarm
    assert "became unphysical after 0.5 ps" in text


@pytest.mark.slow
def test_a_model_agrees_with_itself_on_crystal_and_barrier():
    model = open_native("universal")
    pair = Pair(model.model, model, "float32", 0)
    found = pair.crystal(bulk("NaCl", "rocksalt", a=5.6))
    assert found["teacher"]["relaxed"]
    for name, value in found["teacher"].items():
        assert found["student"][name] == pytest.approx(value, rel=1e-6), name
    # another probe, which fits energies of volumes
    cell = System.from_ase(bulk("NaCl", "rocksalt", a=2**0.5 * found["student"]["a, b, c (Å)"][0]))
    fitted = equation_of_state(NativeEvaluator(model.first), cell)
    assert found["student"]["bulk modulus (GPa)"] == pytest.approx(fitted.bulk_modulus_GPa, rel=0.05)
    assert found["student"]["volume (Å³/atom)"] == pytest.approx(fitted.volume / 2, rel=0.01)
    ammonia = molecule("NH3")
    turned = ammonia.copy()
    turned.positions[:, 2] *= -1.0
    barriers = pair.barrier([ammonia, turned])
    assert barriers["teacher"] == pytest.approx(barriers["student"])
    assert 0.0 < barriers["student"]["barrier_eV"] < 1.0
