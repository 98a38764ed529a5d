"""Every defect is planted on its own and must be found, it and nothing else of weight; clean data give no finding."""

import dataclasses
import functools
import json
import re

import numpy as np
import pytest
from ase import units
from ase.build import fcc111
from labelled_files import changed, labelled, model, rock_salts
from scipy.spatial.transform import Rotation

from mlipjax.data import Dataset, Example
from mlipjax.data.dataset import Placed
from mlipjax.data.label_units import parse_units
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.energies import find_outliers
from mlipjax.doctor.examine import check_zero_shot, examine
from mlipjax.doctor.findings import Finding, demote, refuse_fatal
from mlipjax.doctor.splits import NEAR, displacement, distance_change, fingerprint
from mlipjax.doctor.strain import check_strain, tension
from mlipjax.doctor.structures import check_structures
from mlipjax.system import Labels, System, full_to_voigt, voigt_to_full
from mlipjax.train import LabelledBatches, StructurePrediction


@functools.cache
def clean():
    """Training and validation data without a defect, of one shape."""
    return labelled(rock_salts(12), run=lambda i: i), labelled(rock_salts(4, seed=9), seed=1, run=lambda i: 100 + i)


def diagnose(train=None, valid=None, e0s="model"):
    datasets = {"train": clean()[0] if train is None else train, "valid": clean()[1] if valid is None else valid}
    return examine(model(), datasets, e0s=e0s, batch_size=4)


def found(examination, *severities):
    return {(f.severity, f.check) for f in examination.findings if f.severity in (severities or ("fatal", "warning"))}


def test_clean_data_have_nothing_to_find():
    examination = diagnose()
    assert examination.findings == []
    assert examination.before["valid"]["energy_rmse_meV_per_atom"] < 5.0


def scale(factor):
    return lambda values: factor * values


PLANTED = {
    "kcal/mol": (None, {"forces": scale(units.mol / units.kcal)}, ("fatal", "units"), "like kcal/mol/Å"),
    "Hartree/Bohr": (None, {"forces": scale(units.Bohr / units.Hartree)}, ("fatal", "units"), "like Hartree/Bohr"),
    "gradients": (None, {"forces": scale(-1.0)}, ("fatal", "sign"), "they have the other sign"),
    "pressure": (None, {"stress": scale(-1.0)}, ("fatal", "sign"), "they have the other sign"),
    "kBar": (None, {"stress": scale(-10.0 / units.GPa)}, ("fatal", "units"), "like kBar, of the other sign"),
    "GPa": (None, {"stress": scale(1.0 / units.GPa)}, ("fatal", "units"), "like GPa"),
    "other code": (None, {"energy": lambda e: e - 8 * 1228.7}, ("fatal", "step-0"), "above 500: they do not fit"),
    "drift": (3, {"forces": lambda f: f + 0.3}, ("warning", "net-force"), "the largest sum is 0.5"),
    "no forces": (3, {"forces_weight": scale(0.0)}, ("warning", "labels"), "1 of 12 structures have no forces"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_label_defect_is_found_and_nothing_else(name):
    index, change, expected, message = PLANTED[name]
    examination = diagnose(changed(clean()[0], index, **change))
    assert found(examination) == {expected}
    finding = examination.findings[0]
    assert message in finding.message
    assert finding.remedy
    where = {frame for frame in finding.frames if frame[0] == "train"}
    assert where == {("train", i) for i in (range(12) if index is None else [index])}


def test_energies_in_hartree_are_seen_even_when_shifts_hide_them():
    train, valid = (changed(part, None, energy=lambda e: e / units.Hartree) for part in clean())
    finding = diagnose(train, valid, e0s="estimate").fatal[0]
    assert finding.check == "units"
    assert "energies of train" in finding.message
    assert "like Hartree" in finding.message


def test_one_strained_frame_is_enough_to_see_a_stress_of_the_other_sign():
    potential, params = model()
    start = rock_salts(1)[0]
    pressed = start.replace(positions=0.94 * start.positions, cell=0.94 * start.cell)
    train = labelled([pressed])
    batches = LabelledBatches.create(potential, train, 1)
    graph = batches.batch(batches.plans[0]).graph
    # work against strain is the trace of the model's own stress
    own = np.trace(np.asarray(potential.apply(params, graph).stress[0])) / 3.0
    assert tension(potential, params, graph)[0] == pytest.approx(own, rel=0.05)
    assert check_strain("train", params, batches) == []
    flipped = LabelledBatches.create(potential, changed(train, 0, stress=scale(-1.0)), 1)
    (finding,) = check_strain("train", params, flipped)
    assert (finding.severity, finding.check, finding.frames) == ("fatal", "sign", (("train", 0),))
    assert "0.5 % of strain" in finding.message


@pytest.mark.parametrize("spread", [1e-3, 0.1])
def test_an_energy_of_another_electronic_state_stands_out(spread):
    rng = np.random.default_rng(0)
    systems = rock_salts(40)
    offsets = rng.normal(0.3, spread, 40)  # eV per structure of 8 atoms; the 0.3 is what E0s leave over
    examples = [Example(s, Labels.create(8, e), {}) for s, e in zip(systems, rng.normal(size=40), strict=True)]
    predictions = [
        StructurePrediction(float(e.labels.energy) + shift, np.zeros((8, 3)), np.zeros((3, 3)))
        for e, shift in zip(examples, offsets, strict=True)
    ]

    def outliers(planted):
        train = changed(Dataset.from_examples(examples), 6, energy=lambda energy: energy + planted)
        part = Compared("train", tuple(range(100, 140)), train, predictions)
        return find_outliers(part)[0]

    assert outliers(0.0) == []
    (finding,) = outliers(3.0)
    assert (finding.severity, finding.check, finding.frames) == ("warning", "outlier", (("train", 106),))
    shift = float(re.search(r"by up to ([+-]\d+) meV/atom", finding.message)[1])
    assert shift == pytest.approx(3e3 / 8, abs=300 * spread + 1)
    # what is nothing unusual for this model does not stand out
    assert (outliers(0.5) == []) == (spread == 0.1)
    assert outliers(0.03) == []


def test_virials_in_place_of_stresses():
    train = Dataset.from_examples(
        e._replace(labels=e.labels.replace(stress=-abs(np.linalg.det(e.system.cell)) * e.labels.stress))
        for e in clean()[0]
    )
    examination = diagnose(train)
    assert found(examination) == {("fatal", "units")}
    assert "virial (-stress · volume)" in examination.findings[0].message


def test_estimated_e0s_mend_another_code_and_say_what_they_fix():
    train, valid = (changed(part, None, energy=lambda e: e - 8 * 1228.7) for part in clean())
    examination = diagnose(train, valid, e0s="estimate")
    assert found(examination) == set()
    # Li + F, Li + Cl, Na + F, Na + Cl: three independent compositions of four elements
    assert (examination.e0_estimate.rank, examination.e0_estimate.n_elements) == (3, 4)
    assert [(f.severity, f.check) for f in examination.findings] == [("info", "e0s")]


def test_splits_that_share_frames_neighbours_or_runs():
    train, valid = clean()
    assert found(diagnose(valid=valid + relabelled(train, 5))) == {("fatal", "duplicates")}
    moved = changed(relabelled(train, 5), None, system=jittered)
    near = diagnose(valid=valid + moved)
    assert found(near) == {("warning", "near-duplicates")}
    assert set(near.findings[0].frames) == {("train", 5), ("valid", 4)}
    turned = diagnose(valid=valid + labelled([rotated(jittered(train.systems[5]))], run=lambda _: 999))
    assert found(turned) == {("warning", "near-duplicates")}
    assert set(turned.findings[0].frames) == {("train", 5), ("valid", 4)}
    infos = tuple({"run": 7} for _ in valid.infos)
    leak = diagnose(valid=dataclasses.replace(valid, infos=infos))
    assert found(leak) == {("warning", "leakage")}
    assert ("train", 7) in leak.findings[0].frames
    twice = diagnose(train + train.subset([2]))
    assert found(twice) == {("warning", "duplicates")}
    assert twice.findings[0].frames == (("train", 12),)


def relabelled(dataset, index):
    return dataclasses.replace(dataset.subset([index]), infos=({"run": 999},))


def jittered(system, size=0.005):
    return system.replace(positions=system.positions + size * np.random.default_rng(0).normal(size=(8, 3)))


def rotated(system):
    rotation = Rotation.from_euler("zyx", [40.0, -25.0, 70.0], degrees=True).as_matrix()
    return system.replace(positions=system.positions @ rotation.T, cell=system.cell @ rotation.T)


def test_distances_change_by_about_the_displacement_and_not_by_rotation_or_reflection():
    system = rock_salts(1, seed=3)[0]
    turned = rotated(system)
    assert displacement(system, turned) > 1.0
    assert distance_change(fingerprint(system), fingerprint(turned)) < 1e-5
    mirrored = system.replace(positions=-system.positions, cell=-system.cell)
    assert distance_change(fingerprint(system), fingerprint(mirrored)) < 1e-5
    for size in (0.01, 0.03):
        moved = jittered(system, size)
        assert distance_change(fingerprint(moved), fingerprint(turned)) == pytest.approx(
            displacement(system, moved), rel=0.35
        )
    other = rock_salts(5, seed=4)[4]
    assert distance_change(fingerprint(system), fingerprint(other)) > NEAR


def test_displacement_ignores_translations_and_periodic_images():
    system = clean()[0].systems[0]
    shifted = system.replace(positions=system.positions + [0.3, -8.0, 1.0] + np.eye(8, 3) @ system.cell)
    assert displacement(system, shifted) < 1e-9
    assert displacement(system, jittered(system, 0.01)) == pytest.approx(0.017, abs=0.006)
    assert displacement(system, system.replace(cell=1.1 * system.cell)) == np.inf


def test_unknown_elements_and_missing_labels_stop_before_the_model_is_asked():
    def iodide(system):
        return system.replace(atomic_numbers=np.where(system.atomic_numbers == 17, 53, system.atomic_numbers))

    unknown = diagnose(changed(clean()[0], 1, system=iodide))
    assert found(unknown) == {("fatal", "elements")}
    assert "does not know I" in unknown.findings[0].message
    assert unknown.findings[0].frames == (("train", 1),)
    bare = diagnose(changed(clean()[0], None, energy_weight=scale(0.0), forces_weight=scale(0.0)))
    assert found(bare) == {("fatal", "labels")}
    assert bare.before == {}


def structures(*systems):
    """Findings on structures alone, by severity and name."""
    examples = [Example(s, Labels.create(s.n_atoms, 0.0, np.zeros((s.n_atoms, 3))), {}) for s in systems]
    findings = check_structures(model()[0], {"train": Dataset.from_examples(examples)})
    return {
        (f.severity, f.check, tuple(i for _, i in f.frames)) for f in findings if f.check not in ("elements", "labels")
    }


def test_slabs_and_crystals_stored_without_periodicity():
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    slab.pbc = (True, True, False)
    cut = slab.copy()
    cut.pbc = False
    crystal = rock_salts(1)[0]
    stored = [System.from_ase(slab), System.from_ase(cut), crystal, crystal.replace(pbc=(False,) * 3)]
    assert structures(*stored) == {("fatal", "periodicity", (1, 3))}


def test_molecules_in_a_box_are_fine_with_and_without_periodicity():
    from ase.build import molecule

    atoms = molecule("CH3CH2OH", vacuum=3.0)
    boxed = [atoms.copy() for _ in range(2)]
    boxed[0].pbc, boxed[1].pbc = True, False
    assert structures(*(System.from_ase(a) for a in [*boxed, molecule("H2O")])) == set()


def test_cells_in_other_units_and_overlapping_atoms():
    good = rock_salts(1)[0]
    nanometres = good.replace(cell=0.1 * good.cell, positions=0.1 * good.positions)
    overlapping = good.replace(positions=np.vstack([good.positions[:1] + 0.1, good.positions[:1], good.positions[2:]]))
    close = System(np.array([[0.0, 0, 0], [0, 0, 0.7]]), np.array([9, 11]), np.zeros((3, 3)), (False,) * 3)
    expected = {("fatal", "cell", (1,)), ("fatal", "distances", (2,)), ("warning", "distances", (3,))}
    assert structures(good, nanometres, overlapping, close) == expected


def test_float_range():
    potential, _ = model()
    train = clean()[0]
    far = changed(train, 2, system=lambda s: s.replace(positions=s.positions + 1e5))
    findings = {dtype: check_structures(potential, {"train": far}, dtype=dtype) for dtype in ("float32", "float64")}
    assert [(f.severity, f.check, f.frames) for f in findings["float32"]] == [("fatal", "range", (("train", 2),))]
    assert findings["float64"] == []
    strong = changed(train, 4, forces=lambda f: np.concatenate([[[80.0, 0, 0], [-80.0, 0, 0]], np.zeros((6, 3))]))
    found = check_structures(potential, {"train": strong}, dtype="float32")
    assert [(f.severity, f.check, f.frames) for f in found] == [("warning", "range", (("train", 4),))]
    assert "up to 80" in found[0].message


def test_a_changed_model_at_step_0_is_a_defect():
    forces = np.ones((3, 3))
    same, other = (StructurePrediction(0.0, forces + shift, np.zeros((3, 3))) for shift in (0.0, 0.01))
    assert check_zero_shot([same], [same], "float32") == []
    assert "differ from the model's own by 0.01 eV/Å" in str(check_zero_shot([same], [other], "float32")[0])


def test_findings_name_frames_and_can_be_demoted():
    frames = (*(("a.xyz", i) for i in range(7)), ("b.xyz", 3))
    finding = Finding("fatal", "order", "too small", "Enlarge it.", frames)
    where = "a.xyz, structures 0, 1, 2, 3, 4 and 2 more; b.xyz, structure 3"
    assert str(finding) == f"order: too small ({where}). Enlarge it."
    assert json.loads(json.dumps(finding.to_json()))["where"] == where
    with pytest.raises(ValueError, match="order: too small"):
        refuse_fatal([finding])
    refuse_fatal(demote([finding], ["order"]))
    assert demote([finding], ["units"]) == [finding]
    with pytest.raises(ValueError, match=r"no check is called odrer \(ignore\); choose among agreement, "):
        demote([finding], ["odrer"])


def test_findings_name_files_where_they_are_known():
    train = labelled(rock_salts(6))
    infos = tuple(Placed(info, f"{'ab'[i // 3]}.traj", i % 3) for i, info in enumerate(train.infos))
    planted = changed(dataclasses.replace(train, infos=infos), 4, forces=lambda f: f + 0.3)
    (finding,) = [f for f in diagnose(planted, clean()[1]).findings if f.check == "net-force"]
    assert finding.frames == (("train", 4),)
    assert finding.where == "train: b.traj, structure 1"
    assert finding.to_json()["places"] == [["b.traj", 1]]


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"forces": scale(units.mol / units.kcal)}, 'units="forces=kcal/mol/Å"'),
        ({"forces": scale(-1.0)}, 'units="forces=-eV/Å"'),
        ({"stress": scale(-10.0 / units.GPa)}, 'units="stress=-kBar"'),
        ({"stress": scale(-1.0)}, 'units="stress=-eV/Å^3"'),
    ],
)
def test_the_option_that_is_named_reads_the_labels(change, option):
    (finding,) = diagnose(changed(clean()[0], None, **change)).fatal
    assert option in finding.remedy
    (kind,) = change
    text = option.split('"')[1]
    np.testing.assert_allclose(parse_units(text).convert(kind, change[kind](np.ones((2, 3)))), 1.0, rtol=1e-6)


def test_the_order_of_components_is_named_so_that_it_can_be_read():
    vasp = [0, 1, 2, 5, 3, 4]
    rows = voigt_rows(clean()[0], vasp)
    (finding,) = [f for f in diagnose(rows).fatal if f.check == "order"]
    text = re.search(r'units="(voigt=[a-z-]+)"', finding.remedy)[1]
    assert parse_units(text) == parse_units("voigt=vasp")


def voigt_rows(dataset, order):
    """Stresses whose six components were written in another order."""
    return changed(dataset, None, stress=lambda s: voigt_to_full(full_to_voigt(s)[order]))
