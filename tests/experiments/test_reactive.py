"""``experiments.reactive``: its structures, its table, foreign models, resuming, and a whole run with tiny models."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ase.build import bulk

from experiments.reactive import __main__ as reactive
from experiments.reactive import dynamics, report
from experiments.reactive import units as parts
from experiments.reactive.config import Config
from experiments.reactive.models import Model, barrier, energy_shift, errors
from experiments.reactive.report import verdict
from experiments.reactive.structures import EVENTS, half_molten, sodium
from experiments.reactive.table import table_rows
from experiments.reactive.tuning import load_formate, most_changed, tune
from mlipjax import save
from mlipjax.data import Dataset, Example
from mlipjax.models import NequIPConfig, nequip
from mlipjax.oracles import LennardJones
from mlipjax.potential import Model as Pair
from mlipjax.potential import Potential
from mlipjax.system import Labels, System

PUBLISHED = {
    "o-mos2": 2.53, "o-mose2": 1.55, "o-mote2": 0.90, "o-ws2": 2.68, "o-wse2": 1.66, "o-wte2": 1.01, "li-lifepo4": 0.27,
}  # fmt: skip


@pytest.mark.parametrize("name", list(EVENTS))
def test_events_move_what_they_say_and_nothing_else(name):
    event = EVENTS[name]()
    start, end = event.start.to_ase(), event.end.to_ase()
    assert start.get_chemical_formula() == end.get_chemical_formula()
    assert event.published_eV == PUBLISHED.get(name)
    moved = np.flatnonzero(np.linalg.norm(end.positions - start.positions, axis=1) > 0.01)
    assert len(moved) == (2 if name == "h2-cu111" else 1)
    symbol = {"o": "O", "v": "S", "h2": "H", "li": "Li"}[name.split("-")[0]]
    assert {start[atom].symbol for atom in moved} == {symbol}
    assert event.free[moved].all()
    for atoms in (start, end):
        apart = atoms.get_all_distances(mic=True) + 9.0 * np.eye(len(atoms))
        assert apart.min() > 0.74
        assert apart[moved].min() < 3.5  # still at the surface, not lost


def test_jumps_end_on_equivalent_sites():
    """Where symmetry makes both ends equal, each atom kind's sorted distances are the same in both."""
    for name in ("o-mos2", "v-mos2", "li-lifepo4"):
        event = EVENTS[name]()
        spectra = [np.sort(s.to_ase().get_all_distances(mic=True).ravel()) for s in (event.start, event.end)]
        np.testing.assert_allclose(*spectra, atol=2e-3)


def test_half_of_the_crystal_is_replaced_by_melt():
    solid = sodium()
    liquid = dataclasses.replace(
        solid, positions=np.random.default_rng(0).uniform(0, 1, solid.positions.shape) @ solid.cell
    )
    both = half_molten(solid, liquid)
    assert both.n_atoms == solid.n_atoms
    height = solid.cell[2, 2]
    kept = [np.abs(solid.positions - p).sum(axis=1).min() < 1e-9 for p in both.positions]
    assert 0.4 < np.mean(kept) < 0.6
    melt = both.positions[~np.array(kept), 2] % height
    assert (melt > 0.3 * height).all()
    # the melt handed in has atoms on top of each other and of the crystal
    apart = both.to_ase().get_all_distances(mic=True)[np.triu_indices(both.n_atoms, 1)]
    assert apart.min() > 2.79
    with pytest.raises(ValueError, match="cannot be joined"):
        half_molten(solid, liquid, least=4.5)


def test_formate_is_divided_by_stretches_of_the_trajectory(shared_data):
    published = load_formate(22)
    inside = {info["group"] for info in published.pool.infos}
    outside = {info["group"] for info in published.test.infos}
    assert not inside & outside
    assert len(published.pool) + len(published.test) == 222
    assert 10 <= len(published.test) <= 40
    # frames of one stretch are never more than a stretch away from each other, and never on both sides
    assert all(int(info["frame"]) // 400 == int(info["group"].split("-")[1]) for info in published.test.infos)


def test_errors_of_a_shifted_foreign_model():
    """Labels of the model itself, moved by a constant: the shift is found and no error remains."""
    model = Model.load("ase:ase.calculators.emt:EMT")
    rng = np.random.default_rng(0)
    base = EVENTS["h2-cu111"]().start
    systems = [dataclasses.replace(base, positions=base.positions + 0.05 * rng.normal(size=(14, 3))) for _ in range(3)]
    labels = [Labels.create(14, e.energy - 17.0, e.forces) for e in model.evaluate(systems)]
    data = Dataset.from_examples(Example(s, y, {}) for s, y in zip(systems, labels, strict=True))
    shift = energy_shift(model, data)
    assert shift == pytest.approx(-17.0, abs=1e-6)
    report = errors(model, data, shift)
    assert report["energy_rmse_meV_per_atom"] < 1e-6
    assert report["force_rmse_meV_per_A"] < 1e-6
    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        tune(model, data, "naive", Config(), 0, None)


def test_barrier_of_a_foreign_model():
    event = EVENTS["h2-cu111"]()
    model = Model.load("ase:ase.calculators.emt:EMT")
    free = barrier(model, event, None, n_images=4, fmax=0.3, max_steps=30)
    assert free["fixed"] is None
    energies = np.array(free["own"]["profile_eV"])
    assert free["own"]["barrier_eV"] == pytest.approx(energies.max())
    path = [dataclasses.replace(event.start, positions=np.array(p)) for p in free["own"]["positions"]]
    for system in path:  # the lower layers stayed where they were
        np.testing.assert_array_equal(system.positions[~event.free], event.start.positions[~event.free])
    again = barrier(model, event, path, n_images=4, fmax=0.3, max_steps=1)
    assert again["fixed"]["barrier_eV"] == pytest.approx(free["own"]["barrier_eV"], abs=1e-6)


def test_frames_that_changed_most_come_first():
    class Fake:
        def __init__(self, sizes):
            self.sizes = sizes

        def evaluate(self, systems):
            return [dataclasses.make_dataclass("E", ["forces"])(np.full((2, 3), size)) for size in self.sizes]

    systems = tuple(System(np.zeros((2, 3)), np.array([1, 1]), np.zeros((3, 3)), (False,) * 3) for _ in range(4))
    pool = Dataset(systems, (Labels.create(2),) * 4, ({},) * 4)
    assert most_changed(Fake([0, 0, 0, 0]), Fake([0.1, 0.9, 0.3, 0.2]), pool, 2) == [1, 2]


@dataclasses.dataclass(frozen=True)
class _Argon:
    """Lennard-Jones behind the interface of a network."""

    feature_sizes: tuple = (1,)

    def apply(self, variables, graph, vectors, species):
        energy = variables["params"]["strength"] * LennardJones().node_energy(vectors, graph.edge_mask)[:, None]
        return energy, energy


@pytest.mark.slow
def test_dynamics_return_velocities_in_angstrom_per_picosecond():
    """They are the slope of the positions; and the kinetic energy they hold is that of the temperature."""
    potential = Potential(_Argon(), None, 8.5, (18,), ("energy",), np.zeros((1, 1)))
    model = Model.native("argon", Pair(potential, {"strength": np.float32(1.0)}))
    crystal = System.from_ase(bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2))
    trajectory = dynamics._simulate(model, crystal, 60, 40.0, 1, 4.0)
    assert trajectory.spacing_ps == pytest.approx(0.004)
    slope = (trajectory.positions[2:] - trajectory.positions[:-2]) / 0.008
    error = slope - trajectory.velocities[1:-1]
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.sqrt(np.mean(slope**2))  # the thermostat's noise is not smooth
    kinetic = 0.5 * 39.95 * np.mean(np.sum(trajectory.velocities**2, axis=-1)) * 1.0364e-4  # amu Å^2/ps^2 in eV
    assert 10.0 < kinetic / (1.5 * 8.617e-5) < 80.0


def test_options_are_checked():
    with pytest.raises(ValueError, match="foreign calculator"):
        Config(natives=("ase:a:b", "nequix-mp-1"))
    with pytest.raises(ValueError, match="no event is called o-gold"):
        Config(events=("o-gold",))
    with pytest.raises(ValueError, match="at least two"):
        Config(natives=("nequix-mp-1",))
    with pytest.raises(ValueError, match="no model is called 'no-such-model'"):
        parts.check(Config(model=("no-such-model",)))
    config = Config(growth_steps=0)
    assert config.growth_steps == 0
    assert config.events == Config().events


def test_units_cover_every_part_once_and_wait_for_the_common_path(shared_data):
    config = Config(model=("ase:ase.calculators.emt:EMT",), surface_steps=10)
    units = {unit.name: unit for unit in parts.units_of(config)}
    oracle = config.natives[-1]
    for event in config.events:
        reference = f"barrier-{event}-{oracle}"
        assert units[reference].given == ()
        others = [name for name in units if name.startswith(f"barrier-{event}-") and name != reference]
        assert len(others) == 3  # two native models and the foreign one
        assert all(units[name].given == (reference,) for name in others)
    assert units["workflow-iterative-0"].given == (f"barrier-v-mos2-{oracle}",)
    # what was computed for the table of events is not computed again
    assert units["workflow-zero-shot-0"].given == (f"barrier-v-mos2-{oracle}", f"barrier-v-mos2-{config.natives[0]}")
    assert sum(name.startswith("formate-") for name in units) == 4 + 3
    assert sum(name.startswith("growth-") for name in units) == 1 + 3  # a foreign calculator is not simulated
    assert sum(name.startswith("surface-") for name in units) == 3
    alone = Config(events=("o-mos2",), formate=False, growth_steps=0)
    names = [unit.name for unit in parts.units_of(alone)]
    assert f"barrier-v-mos2-{oracle}" in names  # the workflow needs it, though the table does not


def _formate_row(arm, labels, error, slope):
    report = {"force_mae_meV_per_A": error, "energy_std_meV_per_atom": 1.0, "n_frames": 20}
    return {
        "arm": arm, "model": "a", "labels": labels, "seed": 0, "errors": report, "softening": slope,
        "softening_95": [slope - 0.1, slope + 0.1],
    }  # fmt: skip


def results_with(tuned):
    own = {
        "barrier_eV": 2.0,
        "converged": True,
        "climbed": True,
        "left_eV_per_A": 0.05,
        "profile_eV": [0, 2, 0],
        "distance_A": [0, 1, 2],
    }
    event = {
        "what": "jump", "published_eV": 2.5,
        "models": {
            "a": {"own": own, "fixed": {"barrier_eV": 1.7}},
            "o": {"own": {**own, "barrier_eV": 2.4, "climbed": False}, "fixed": None},
        },
    }  # fmt: skip
    arms = [
        ("zero-shot", 0, 80.0, 0.8),
        ("one-shot", 10, tuned, 0.95),
        ("iterative", 10, tuned + 1, 0.9),
        ("scratch", 10, 300.0, 0.3),
    ]
    rows = [_formate_row(*arm) for arm in arms]
    return {
        "driver": "a", "oracle": "o", "models": ["a", "o"], "events": {"jump": event}, "workflow": None, "growth": None,
        "formate": {"rows": rows, "n_test": 20, "test_groups": ["block-1"], "n_pool": 200},
    }  # fmt: skip


def test_table_holds_errors_against_the_right_reference():
    rows = {(row[1], row[2], row[3]): row for row in table_rows(results_with(40.0))}
    assert rows["barrier", "a", "zero-shot"][6:8] == [2.5, pytest.approx(-0.5)]  # published
    assert rows["barrier", "o", "zero-shot"][-1] == "published DFT; no image climbed: interpolated"
    assert rows["fixed-path barrier", "a", "zero-shot"][6:8] == [2.4, pytest.approx(-0.7)]  # on the oracle's path
    assert rows["force slope", "a", "scratch"][7] == pytest.approx(-0.7)
    assert rows["force MAE", "a", "one-shot"][4] == 10


def test_verdict_warns_when_fine_tuning_did_not_help():
    text, alarm = verdict(results_with(40.0))
    assert not alarm
    assert "goes from 80 to 40 one-shot" in text
    assert "published DFT 2.50" in text
    assert verdict(results_with(90.0))[1]


def test_few_labels_are_worth_it_where_they_beat_none_and_training_from_scratch():
    assert [report._answer(results_with(error)) for error in (40.0, 90.0)] == ["supported", "contradicted"]
    numbers = report._numbers(results_with(40.0))
    assert numbers["formate, force MAE, one-shot, 10 labels"] == (40.0, "meV/Å", 20, 1)
    assert numbers["formate, force MAE, zero-shot"].value == 80.0


@pytest.mark.slow
def test_whole_run_with_tiny_models_and_a_foreign_one(tmp_path, monkeypatch):
    """Random models know nothing; the run still ends with a table, and a second call computes nothing."""
    config = NequIPConfig(
        species=(1, 11, 16, 29, 42), cutoff=4.5, hidden_irreps="4x0e + 2x1o", n_layers=2, radial_hidden=(8,), lmax=1,
        avg_n_neighbors=20.0, scale=0.05,
    )  # fmt: skip
    for seed in range(2):
        potential = nequip(config)
        save(tmp_path / f"model-{seed}", potential, potential.init(jax.random.key(seed)))
    natives = [str(tmp_path / f"model-{seed}") for seed in range(2)]
    arguments = [
        "--natives", *natives, "--model", "ase:ase.calculators.lj:LennardJones", "--no-formate", "--events", "h2-cu111",
        "v-mos2", "--images", "3", "--band-steps", "4", "--workflow-labels", "4", "--workflow-steps", "4", "--epochs",
        "1", "--scratch-epochs", "1", "--growth-steps", "0", "--workers", "1", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    assert reactive.run(arguments) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["events"]) == {"h2-cu111", "v-mos2"}
    assert set(results["workflow"]["arms"]) == {"zero-shot", "one-shot", "scratch", "iterative"}
    assert len(results["events"]["h2-cu111"]["models"]) == 3
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    monkeypatch.setattr(parts, "barrier", lambda *a, **k: pytest.fail("computed again"))
    assert reactive.run(arguments) == 0
