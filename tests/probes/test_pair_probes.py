"""Short-range walls, softening, and the evaluators, on pair potentials."""

import numpy as np
import pytest
from analytic_case import PARAMS, evaluator, potential_of, silicon, softening_against
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.vibrations import Vibrations

from mlipjax import Calculator
from mlipjax.data import Dataset, Example
from mlipjax.potential import Model
from mlipjax.probes.dimer import dimer_walls
from mlipjax.probes.evaluator import AseEvaluator, Evaluation, NativeEvaluator, load_evaluator
from mlipjax.probes.gamma import gamma_modes
from mlipjax.probes.softening import force_slope, rattled, softening
from mlipjax.system import Labels, System


def test_dimer_of_argon_has_the_known_well_and_wall():
    result = dimer_walls(evaluator("lj"), [18], shortest=1.6, longest=8.6, n_points=701)
    assert result.pairs == ("Ar-Ar",)
    assert result.minima[0] == pytest.approx(2 ** (1 / 6) * 3.4, abs=0.01)
    assert result.depths[0] == pytest.approx(-0.0103, rel=1e-4)
    assert result.holes[0] == 0.0
    r6 = (3.4 / 1.6) ** 6
    assert result.walls[0] == pytest.approx(4 * 0.0103 * (r6**2 - r6), rel=1e-6)
    assert "repel" in result.verdict


def test_dimer_finds_the_hole_of_a_buckingham_pair():
    """``A exp(-r/rho) - C/r^6`` falls to minus infinity at short distance; its top is where the derivative vanishes."""
    a, rho, c = 2000.0, 0.3, 30.0

    def evaluate(systems):
        rows = []
        for system in systems:
            r = float(np.linalg.norm(system.positions[1] - system.positions[0]))
            pull = -a / rho * np.exp(-r / rho) + 6 * c / r**7
            rows.append(Evaluation(a * np.exp(-r / rho) - c / r**6, np.array([[pull, 0, 0], [-pull, 0, 0]]), None))
        return rows

    result = dimer_walls(evaluate, [18], shortest=0.3, longest=6.0, n_points=1141)
    r = result.distances
    inside = r < 1.5
    top = r[inside][np.argmin(np.abs(-a / rho * np.exp(-r[inside] / rho) + 6 * c / r[inside] ** 7))]
    assert result.holes[0] == pytest.approx(top, abs=0.011)
    assert "HOLES" in result.verdict
    assert result.minima[0] > result.holes[0]


def test_softening_finds_the_factor_of_a_softened_potential():
    systems = rattled(silicon(), (0.05, 0.2), n_each=3)
    soft = NativeEvaluator(Model(potential_of("sw"), {"strength": np.float64(0.8)}))
    result = softening_against(soft, evaluator("sw"), systems)
    assert result.slope == pytest.approx(0.8, rel=1e-10)
    assert result.interval == pytest.approx((0.8, 0.8))
    assert "too SOFT" in result.verdict
    for factor, word in ((0.97, "a little soft"), (1.03, "a little stiff"), (1.2, "too STIFF")):
        other = NativeEvaluator(Model(potential_of("sw"), {"strength": np.float64(factor)}))
        assert softening_against(other, evaluator("sw"), systems).verdict.startswith(f"{word}: slope of forces")
    # and from labels, where atoms at equilibrium are left out
    labels = [Labels.create(8, forces=e.forces) for e in evaluator("sw")(systems)]
    data = Dataset.from_examples(Example(s, x, {}) for s, x in zip(systems, labels, strict=True))
    strong = softening(soft, data, threshold=1.0)
    assert strong.slope == pytest.approx(0.8, rel=1e-10)
    assert len(strong.reference) < len(result.reference)
    with pytest.raises(ValueError, match="at least two structures"):
        softening(soft, data, threshold=1e3)


def test_labels_that_belong_to_other_forces_say_nothing_about_softness():
    """Of another sign, unit or order of atoms: no model is soft by so much."""
    labels = [found.forces for found in evaluator("sw")(rattled(silicon(), (0.05, 0.2), n_each=3))]
    for change in (lambda f: -f, lambda f: 23.06 * f, lambda f: 0.04 * f, lambda f: f[::-1]):
        assert force_slope([(change(forces), forces) for forces in labels]).verdict.startswith("NOTHING about softness")


def test_softening_interval_covers_a_slope_known_with_noise():
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(40):
        reference = rng.normal(size=(12, 5, 3))
        predicted = 0.9 * reference + 0.2 * rng.normal(size=reference.shape)
        low, high = force_slope(list(zip(reference, predicted, strict=True)), seed=trial).interval
        covered += low <= 0.9 <= high
    assert covered >= 32  # 95 % of 40 is 38; the bootstrap of 12 structures is a little narrow


def test_a_few_soft_structures_with_large_forces_do_not_decide_the_slope():
    """Of 40 structures 3 have forces ten times as large, and half as steep: they outweigh all others in a plain fit."""
    rng = np.random.default_rng(5)
    pairs = []
    for number in range(40):
        wild = number in (7, 20, 33)
        reference = (10.0 if wild else 1.0) * rng.normal(size=(6, 3))
        pairs.append((reference, (0.45 if wild else 0.9) * reference + 0.05 * rng.normal(size=reference.shape)))
    result = force_slope(pairs)
    assert result.slope == pytest.approx(0.9, abs=0.02)
    assert result.interval == pytest.approx((0.9, 0.9), abs=0.02)
    assert result.slope_of_all < 0.55
    assert result.slope_apart == pytest.approx(0.45, abs=0.01)
    assert set(result.structures_apart) == {7, 20, 33}
    assert result.n_structures == 40
    assert result.apart.sum() == 3 * 18
    for words in ("37 structures", "3 of 40 structures with a slope of 0.4", "7", "20", "33"):
        assert words in result.verdict
    # without them, the same bulk and nobody apart
    rest = force_slope([pair for number, pair in enumerate(pairs) if number not in (7, 20, 33)])
    assert rest.slope == pytest.approx(result.slope, rel=1e-12)
    assert rest.structures_apart == ()
    assert "APART" not in rest.verdict
    (panel,) = result.figure().axes
    drawn = np.concatenate([points.get_offsets() for points in panel.collections])
    assert len(drawn) == len(result.reference)  # every component is in the figure, or marked at its edge
    assert np.abs(drawn).max() <= panel.get_xlim()[1] * (1 + 1e-12)


def test_structures_that_differ_as_usual_are_one_bulk():
    rng = np.random.default_rng(6)
    for _ in range(20):
        reference = rng.normal(size=(50, 4, 3)) * np.exp(rng.normal(size=(50, 1, 1)))
        predicted = 0.8 * reference + 0.15 * rng.normal(size=reference.shape)
        assert len(force_slope(list(zip(reference, predicted, strict=True))).structures_apart) <= 1


def test_batches_do_not_change_what_is_evaluated():
    """Structures of several sizes, one of them a molecule, in batches that memory divides, are those one by one."""
    crystal = System.from_ase(bulk("Ar", "fcc", a=5.3))
    pair = System(np.array([[0.0, 0, 0], [3.9, 0.3, 0]]), np.array([18, 18]), np.zeros((3, 3)), (False,) * 3)
    systems = [crystal, System.from_ase(bulk("Ar", "fcc", a=5.2, cubic=True)), pair]
    together = evaluator("lj")(systems)
    divided = NativeEvaluator(Model(potential_of("lj"), PARAMS), max_slots=800)(systems)
    for system, a, b in zip(systems, together, divided, strict=True):
        (alone,) = evaluator("lj")([system])
        for other in (b, alone):
            assert a.energy == pytest.approx(other.energy, abs=1e-9)
            np.testing.assert_allclose(a.forces, other.forces, atol=1e-10)
        assert (a.stress is None) == (not all(system.pbc))
    with pytest.raises(ValueError, match="does not know Si"):
        evaluator("lj")([System(np.zeros((1, 3)), np.array([14]), np.zeros((3, 3)), (False,) * 3)])


def test_foreign_and_native_evaluators_agree():
    atoms = Atoms("Ar4", [[0, 0, 0], [3.7, 0, 0], [0, 3.9, 0.2], [0.3, 0.2, 3.8]], cell=[9, 9.5, 10], pbc=True)
    theirs = AseEvaluator(AseLennardJones(sigma=3.4, epsilon=0.0103, rc=8.5, ro=6.0, smooth=True))
    (a,), (b,) = evaluator("lj")([System.from_ase(atoms)]), theirs([System.from_ase(atoms)])
    assert a.energy + 4 * 0.5 == pytest.approx(b.energy, abs=1e-8)
    np.testing.assert_allclose(a.forces, b.forces, atol=1e-8)
    np.testing.assert_allclose(a.stress, b.stress, atol=1e-9)


def test_evaluators_by_name():
    named = load_evaluator("ase:ase.calculators.emt:EMT")
    copper = System(np.array([[0.0, 0, 0], [2.3, 0, 0]]), np.array([29, 29]), np.zeros((3, 3)), (False,) * 3)
    atoms = copper.to_ase()
    atoms.calc = named.calculator
    assert named([copper])[0].energy == pytest.approx(atoms.get_potential_energy())
    with pytest.raises(ValueError, match="nothing to evaluate"):
        named([])


def test_modes_of_a_tetramer_are_those_known_and_those_of_ase(tmp_path):
    """A regular tetrahedron of springs has ``omega^2 = 4 k/m`` once, ``2 k/m`` three times and ``k/m`` twice."""
    edge = 2 ** (1 / 6) * 3.4
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * edge / np.sqrt(8)
    cluster = System(corners, np.full(4, 18), np.zeros((3, 3)), (False,) * 3)
    result = gamma_modes(Model(potential_of("lj"), PARAMS), cluster)
    spring = 72 * 0.0103 / (2 ** (1 / 3) * 3.4**2)
    base = np.sqrt(spring / 39.95) * 1000 * units.fs / (2 * np.pi)  # THz
    known = base * np.sqrt([1, 1, 2, 2, 2, 4])
    assert result.n_rigid == 6
    np.testing.assert_allclose(result.vibrations_THz, known, rtol=1e-3)
    assert result.n_imaginary == 0
    atoms = cluster.to_ase()
    atoms.calc = Calculator(potential_of("lj"), PARAMS)
    theirs = Vibrations(atoms, name=str(tmp_path / "modes"), delta=0.005)
    theirs.run()
    np.testing.assert_allclose(result.wavenumbers[6:], theirs.get_frequencies()[6:].real, rtol=2e-3)


def test_a_line_of_atoms_has_five_rigid_modes():
    r = 2 ** (1 / 6) * 3.4
    line = System(np.array([[0.0, 0, 0], [r, 0, 0]]), np.full(2, 18), np.zeros((3, 3)), (False,) * 3)
    result = gamma_modes(Model(potential_of("lj"), PARAMS), line)
    assert result.n_rigid == 5
    assert len(result.vibrations_THz) == 1
    known = np.sqrt(2 * 72 * 0.0103 / (2 ** (1 / 3) * 3.4**2) / 39.95) * 1000 * units.fs / (2 * np.pi)
    assert result.vibrations_THz[0] == pytest.approx(known, rel=1e-3)
