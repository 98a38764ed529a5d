"""Every way in which labels can be wrong, planted in all structures or in a quarter of them; and right labels."""

import functools

import numpy as np
import pytest
from ase.build import bulk

import mlipjax
from mlipjax import tree
from mlipjax.data import Dataset, Example
from mlipjax.doctor import Compared, check_predictions
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, StructurePrediction, predict

N = 24
QUARTER = (1, 5, 9, 13, 17, 21)
KCAL, HARTREE_BOHR, GPA = 23.0605, 1.0 / 51.42208, 160.21766


@functools.cache
def crystals():
    """Rattled, strained SiC, and what the embedded model says of it."""
    potential, params = mlipjax.load("universal")
    params, rng, examples = tree.cast(params, "float32"), np.random.default_rng(0), []
    for seed in range(N):
        atoms = bulk("SiC", "zincblende", a=4.36 * (1.0 + rng.normal(0.0, 0.01)), cubic=True)
        strain = rng.normal(0.0, 0.01, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.rattle(0.08, seed=100 + seed)
        examples.append(Example(System.from_ase(atoms), Labels.create(8), {}))
    dataset = Dataset.from_examples(examples)
    batches = LabelledBatches.create(potential, dataset, 8)
    return potential, dataset, list(predict(potential, params, batches))


def labels(index):
    """Labels of a good calculation: the model's numbers, somewhat stiffer, and a little noise."""
    _, _, predictions = crystals()
    found, rng = predictions[index], np.random.default_rng(index)
    noise = rng.normal(scale=1e-3, size=(3, 3))
    return Labels.create(
        8,
        found.energy + 0.16 + rng.normal(scale=0.02),
        1.05 * found.forces + rng.normal(scale=0.05, size=(8, 3)),
        1.04 * found.stress + noise + noise.T,
    )


def system(index):
    return crystals()[1].systems[index]


def findings(change=None, chosen=range(N), predictions=None):
    """Warnings and fatal findings on labels of which some went through ``change(index, label) -> {kind: value}``."""
    potential, dataset, found = crystals()
    examples = []
    for index in range(N):
        label = labels(index)
        if change is not None and index in chosen:
            label = label.replace(**change(index, label))
        examples.append(Example(dataset.systems[index], label, {}))
    train = Compared("train", tuple(range(N)), Dataset.from_examples(examples), predictions or found)
    checked = check_predictions(potential, train, e0s="model", dtype="float32")
    return [finding for finding in checked if finding.severity != "info"]


def forces(change):
    return lambda index, label: {"forces": change(index, label.forces)}


def stress(change):
    return lambda index, label: {"stress": change(index, label.stress)}


def energy(change):
    return lambda index, label: {"energy": change(index, float(label.energy))}


def voigt(order, shears=1.0):
    """Stress whose six components were written in another order than they are read."""

    def change(index, matrix):
        rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
        written = (matrix[rows, columns] * np.array([1.0, 1.0, 1.0, shears, shears, shears]))[list(order)]
        read = np.empty((3, 3))
        read[rows, columns], read[columns, rows] = written, written
        return read

    return stress(change)


def volume(index):
    return abs(np.linalg.det(system(index).cell))


ORDER = np.random.default_rng(5).permutation(8)
# fault: what is done to labels, the label it is about, and the check that names it
FAULTS = {
    "zero forces": (forces(lambda i, f: 0.0 * f), "forces", "placeholder"),
    "constant forces": (forces(lambda i, f: 0.0 * f + 0.1), "forces", "placeholder"),
    "forces of one structure": (forces(lambda i, f: labels(0).forces), "forces", "placeholder"),
    "fixed atoms": (forces(lambda i, f: f * (np.arange(8) > 2)[:, None]), "forces", "placeholder"),
    "gradients": (forces(lambda i, f: -f), "forces", "sign"),
    "kcal/mol/Å": (forces(lambda i, f: KCAL * f), "forces", "units"),
    "Hartree/Bohr": (forces(lambda i, f: HARTREE_BOHR * f), "forces", "units"),
    "atoms in another order": (forces(lambda i, f: f[ORDER]), "forces", "order"),
    "atoms sorted": (forces(lambda i, f: f[np.argsort(system(i).atomic_numbers, kind="stable")]), "forces", "order"),
    "atoms in own orders": (forces(lambda i, f: f[np.random.default_rng(i).permutation(8)]), "forces", "order"),
    "columns exchanged": (forces(lambda i, f: f[:, ::-1]), "forces", "order"),
    "mirrored": (forces(lambda i, f: f * [-1.0, 1.0, 1.0]), "forces", "order"),
    "random forces": (forces(lambda i, f: np.random.default_rng(i).normal(size=f.shape)), "forces", "agreement"),
    "zero stress": (stress(lambda i, s: 0.0 * s), "stress", "placeholder"),
    "shears left out": (stress(lambda i, s: np.diag(np.diag(s))), "stress", "placeholder"),
    "pressure": (stress(lambda i, s: -s), "stress", "sign"),
    "GPa": (stress(lambda i, s: GPA * s), "stress", "units"),
    "kBar, pressure": (stress(lambda i, s: -10.0 * GPA * s), "stress", "units"),
    "Hartree/Bohr^3": (stress(lambda i, s: s / 183.6), "stress", "units"),
    "forces of no unit": (forces(lambda i, f: 0.01 * f), "forces", "units"),
    "stress of no unit": (stress(lambda i, s: s / 20.0), "stress", "units"),
    "virial": (stress(lambda i, s: -volume(i) * s), "stress", "units"),
    "virial of the other sign": (stress(lambda i, s: volume(i) * s), "stress", "units"),
    "xx yy zz xy yz zx": (voigt((0, 1, 2, 5, 3, 4)), "stress", "order"),
    "xx yy zz xy xz yz": (voigt((0, 1, 2, 5, 4, 3)), "stress", "order"),
    "xx xy xz yy yz zz": (voigt((0, 5, 4, 1, 3, 2)), "stress", "order"),
    "engineering shears": (voigt(range(6), 2.0), "stress", "order"),
    "halved shears": (voigt(range(6), 0.5), "stress", "order"),
    "not symmetric": (stress(lambda i, s: np.triu(s)), "stress", "order"),
    "random stress": (
        stress(lambda i, s: (lambda a: 0.05 * (a + a.T))(np.random.default_rng(i).normal(size=(3, 3)))),
        "stress",
        "agreement",
    ),
    "zero energy": (energy(lambda i, e: 0.0), "energies", "placeholder"),
    "constant energy": (energy(lambda i, e: -57.25), "energies", "placeholder"),
    "minus energy": (energy(lambda i, e: -e), "energies", "sign"),
    "kcal/mol": (energy(lambda i, e: KCAL * e), "energies", "units"),
    "Hartree": (energy(lambda i, e: e / 27.2114), "energies", "units"),
    "energy per atom": (energy(lambda i, e: e / 8.0), "energies", "units"),
}


@pytest.mark.parametrize("chosen", [tuple(range(N)), QUARTER], ids=["all", "quarter"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_label_and_structures(name, chosen):
    change, kind, check = FAULTS[name]
    found = findings(change, chosen)
    named = [finding for finding in found if finding.check == check and kind in finding.message]
    assert named, found
    assert named[0].severity == "fatal"
    where = {index for _, index in named[0].frames}
    assert len(where & set(chosen)) >= 0.6 * len(chosen)
    # the structure from which all others have their label cannot be told from them
    assert len(where - set(chosen)) <= 1
    about_others = [f for f in found if f.check != "step-0" and kind not in f.message]
    assert about_others == []


@pytest.mark.parametrize(("factor", "check"), [(-1.0, "sign"), (10.0 * GPA, "units"), (-10.0 * GPA, "units")])
def test_some_wrong_stresses_among_structures_that_are_all_under_pressure(factor, check):
    """The pressure is what they have in common: without it, wrong ones resemble nothing."""
    pressed = [found._replace(stress=found.stress - 0.08 * np.eye(3)) for found in crystals()[2]]
    given = []
    for i in range(N):
        right = labels(i).stress - 0.083 * np.eye(3)
        given.append((float(labels(i).energy), labels(i).forces, factor * right if i in QUARTER else right))
    (finding,) = examined([system(i) for i in range(N)], pressed, given)
    assert (finding.severity, finding.check) == ("fatal", check)
    assert {index for _, index in finding.frames} == set(QUARTER)


def neighbour(kind):
    return lambda index, label: {kind: getattr(labels((index + 1) % N), kind)}


@pytest.mark.parametrize("kind", ["forces", "stress", "energy"])
def test_labels_of_the_next_structure_are_seen_to_be_theirs(kind):
    (finding,) = findings(neighbour(kind))
    assert (finding.severity, finding.check) == ("fatal", "order")
    assert "belong to the structure 1 place" in finding.message
    assert finding.message.startswith({"energy": "energies"}.get(kind, kind))


@pytest.mark.parametrize("kind", ["forces", "stress", "energy"])
def test_labels_of_all_structures_shuffled_are_complained_about(kind):
    order = np.random.default_rng(7).permutation(N)
    found = findings(lambda index, label: {kind: getattr(labels(int(order[index])), kind)})
    assert {finding.severity for finding in found} == {"fatal"}
    assert {finding.check for finding in found} <= {"order", "agreement"}


@pytest.mark.parametrize("chosen", [QUARTER, tuple(range(0, N, 2))], ids=["quarter", "half"])
def test_another_zero_of_energy_in_some_structures_is_seen(chosen):
    (finding,) = findings(energy(lambda i, e: e + 3.0), chosen)
    assert (finding.severity, finding.check) == ("warning", "levels")
    assert {index for _, index in finding.frames} in (set(chosen), set(range(N)) - set(chosen))
    assert any(f"{shift} meV/atom" in finding.message for shift in range(372, 379))


@pytest.mark.parametrize("n", [3, 6])
def test_energies_of_structures_of_other_sizes_that_are_out_are_named_and_not_the_zero(n):
    """A few wrong energies of many are those structures' own matter: isolated-atom energies would be wrong in all."""
    structures, predictions, given = [], [], []
    for i in range(N):
        size = 1 + i % 3  # supercells, of which no composition holds six
        tiled = system(i).to_ase().repeat((size, 1, 1))
        tiled.numbers[: i % 8] = tiled.numbers[0]
        found = crystals()[2][i]
        forces, total = np.tile(found.forces, (size, 1)), size * found.energy
        structures.append(System.from_ase(tiled))
        predictions.append(found._replace(energy=total, forces=forces))
        wrong = 2.0 * len(tiled) * (1 if i % 2 else -1) * (i < n) * (1.0 + 0.3 * i)
        given.append((total + 0.001 * len(tiled) + wrong, forces, found.stress))
    (finding,) = [f for f in examined(structures, predictions, given) if "energ" in f.message]
    assert (finding.severity, finding.check) == ("fatal", "step-0")
    assert f"the energies of {n} of {N} structures" in finding.message
    assert {index for _, index in finding.frames} == set(range(n))


def test_pressures_that_a_model_has_wrong_are_no_unit_and_no_sign():
    """Of structures under a pressure that the model knows nothing of, two agree with any factor: that is no proof."""
    predicted = crystals()[2]
    for factors in ((-2.6, -2.7), (0.003, 0.003), (-0.01, -0.01)):
        given = []
        for i in range(N):
            right = labels(i)
            pressure = np.array(predicted[i].stress) + 0.4 * np.eye(3) if i < 2 else None
            stress = right.stress if pressure is None else factors[i] * pressure
            given.append((float(right.energy), right.forces, stress))
        wrong = [
            found._replace(stress=np.array(found.stress) + 0.4 * np.eye(3)) if i < 2 else found
            for i, found in enumerate(predicted)
        ]
        found = examined([system(i) for i in range(N)], wrong, given)
        assert {finding.severity for finding in found} <= {"warning"}


def flattened(factor):
    """Energies about that of one structure."""
    middle = crystals()[2][0].energy
    return lambda i, label: {"energy": factor * (float(label.energy) - middle) + middle}


def softened(factor):
    """Another curvature of the same surface: of energies, forces and stresses alike."""
    return lambda i, label: {
        "forces": factor * label.forces,
        "stress": factor * label.stress,
        **flattened(factor)(i, label),
    }


def noise(kind, size):
    def change(index, label):
        kick = np.random.default_rng(index).normal(scale=size, size=np.shape(getattr(label, kind)))
        return {kind: getattr(label, kind) + (kick + kick.T if kind == "stress" else kick)}

    return change


RIGHT = {
    "as they are": None,
    "softer": softened(0.7),
    "stiffer": softened(1.3),
    "noisy forces": noise("forces", 0.5),
    "noisy stress": noise("stress", 0.003),
    "noisy energies": noise("energy", 0.08),
    "another equilibrium volume": stress(lambda i, s: s + 0.03 * np.eye(3)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_labels_are_never_complained_about(name):
    assert findings(RIGHT[name]) == []


def test_flatter_energies_belong_to_other_forces_and_are_no_worse_than_that():
    (finding,) = findings(flattened(0.7))
    assert (finding.severity, finding.check) == ("warning", "work")


def examined(systems, predictions, given):
    """Findings on any structures: predictions and labels as triples of energy, forces, stress."""
    examples = [Example(s, Labels.create(s.n_atoms, *label), {}) for s, label in zip(systems, given, strict=True)]
    found = [StructurePrediction(*prediction) for prediction in predictions]
    train = Compared("train", tuple(range(len(systems))), Dataset.from_examples(examples), found)
    checked = check_predictions(crystals()[0], train, e0s="model", dtype="float64")
    return [finding for finding in checked if finding.severity != "info"]


def test_structures_at_rest_where_the_model_is_not_are_fine():
    rng = np.random.default_rng(1)
    systems = [system(i) for i in range(12)]
    zero, model = np.zeros((3, 3)), [rng.normal(scale=0.2, size=(8, 3)) for _ in systems]
    at_rest = [rng.normal(scale=0.01, size=(8, 3)) for _ in systems]
    energies = -57.0 + 0.001 * rng.normal(size=12)
    predictions = [(e, f, zero) for e, f in zip(energies, model, strict=True)]
    assert examined(systems, predictions, [(e, f, zero) for e, f in zip(energies, at_rest, strict=True)]) == []


def test_one_structure_and_lone_atoms_are_fine():
    one = crystals()[2][0]
    label = labels(0)
    given = (float(label.energy), label.forces, label.stress)
    assert examined([system(0)], [one], [given]) == []
    atom = System(np.zeros((1, 3)), np.array([14]), 12.0 * np.eye(3))
    nothing = (-1.0, np.zeros((1, 3)), np.zeros((3, 3)))
    assert examined([atom] * 3, [nothing] * 3, [nothing] * 3) == []


def test_small_molecules_are_judged_together():
    rng = np.random.default_rng(2)
    systems = [System(np.array([[0.0, 0, 0], [0, 0, 1.8]]), np.array([14, 6]), np.zeros((3, 3)), (False,) * 3)] * 20
    pulls = [f * np.array([[0.0, 0, 1.0], [0, 0, -1.0]]) for f in rng.normal(size=20)]
    model = [(-3.0, 0.8 * pull, np.zeros((3, 3))) for pull in pulls]
    assert examined(systems, model, [(-3.0, pull, None) for pull in pulls]) == []
    (finding,) = examined(systems, model, [(-3.0, -pull, None) for pull in pulls])
    assert (finding.severity, finding.check) == ("fatal", "sign")
    assert len(finding.frames) >= 18


def test_a_model_that_knows_nothing_is_a_warning_and_no_verdict_on_the_labels():
    rng = np.random.default_rng(3)
    other = [
        StructurePrediction(p.energy, rng.normal(size=(8, 3)), (lambda a: 0.03 * (a + a.T))(rng.normal(size=(3, 3))))
        for p in crystals()[2]
    ]
    spread = [p._replace(energy=p.energy + rng.normal(scale=1.0)) for p in other]
    found = findings(predictions=spread)
    assert {finding.check for finding in found} <= {"agreement", "outlier"}
    assert {finding.severity for finding in found} == {"warning"}
    assert any("forces of train and the model's disagree" in finding.message for finding in found)
