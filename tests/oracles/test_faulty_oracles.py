"""Oracles that return or do what they should not: a failed label with its reason, and the run goes on."""

import os
import signal
import sys
import warnings

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from mlipjax.factory import import_factory, make_calculator
from mlipjax.oracles import AseOracle, Failure, Labeller, LabelStore, SerialExecutor, attempt
from mlipjax.system import Labels, System

FAULT = "MLIPJAX_TEST_FAULT"
N = 4


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no message either")


def raising(error):
    def act(atoms):
        raise error

    return act


def moving(atoms):
    atoms.positions += 0.1
    return {}


def leaving(atoms):
    os.chdir("/")
    return {}


def exiting(atoms):
    sys.exit("licence expired")


def noisy(atoms):
    print("SCF converged")
    warnings.warn("basis set superposition", stacklevel=1)
    return {}


FORCES = np.ones((N, 3))
FAULTS = {
    "too few forces": lambda atoms: {"forces": FORCES[:-1]},
    "one force": lambda atoms: {"forces": FORCES[:1]},
    "flat forces": lambda atoms: {"forces": FORCES.ravel()},
    "complex forces": lambda atoms: {"forces": FORCES + 0j},
    "huge forces": lambda atoms: {"forces": FORCES * 1e300},
    "forces of nan": lambda atoms: {"forces": FORCES * np.nan},
    "no forces": lambda atoms: {"forces": None},
    "text forces": lambda atoms: {"forces": FORCES.astype(str)},
    "objects": lambda atoms: {"forces": FORCES.astype(object)},
    "masked forces": lambda atoms: {"forces": np.ma.masked_greater(FORCES, 0.0)},
    "energies of atoms": lambda atoms: {"energy": np.zeros(N)},
    "complex energy": lambda atoms: {"energy": 1j},
    "no energy": lambda atoms: {"energy": None},
    "infinite energy": lambda atoms: {"energy": -np.inf},
    "text energy": lambda atoms: {"energy": "-1.0"},
    "stress of three": lambda atoms: {"stress": np.zeros(3)},
    "stress of nan": lambda atoms: {"stress": np.full(6, np.nan)},
    "moves the atoms": moving,
    "SystemExit": raising(SystemExit(3)),
    "sys.exit": exiting,
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "unprintable error": raising(Unprintable()),
    "long error": raising(RuntimeError("line\n" * 10_000)),
    "odd error": raising(RuntimeError("\udcff \0")),
}


class Faulty(Calculator):
    """Answers 0 and ones, but for the structures of lithium, where it has a fault."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.results = {"energy": 0.0, "forces": FORCES.copy(), "stress": np.zeros(6)}
        if atoms.numbers[0] == 3:
            self.results |= {**FAULTS, "noise": noisy, "leaves": leaving}[os.environ[FAULT]](atoms)


def faulty():
    return Faulty()


def needs_an_argument(settings):
    return Faulty()


def breaks_down():
    sys.exit("no licence")


def structure(number):
    return System(np.arange(3.0 * N).reshape(N, 3), np.full(N, number), 20.0 * np.eye(3))


ORACLE = AseOracle("test_faulty_oracles:faulty")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_failed_label_and_the_next_one_is_made(tmp_path, monkeypatch, fault):
    monkeypatch.setenv(FAULT, fault)
    with Labeller(ORACLE, tmp_path / "labels.db", executor=SerialExecutor()) as labeller:
        bad, good = labeller.label([structure(3), structure(6)])
        assert (labeller.counts.computed, labeller.counts.failed) == (1, 1)
    assert isinstance(good, Labels)
    assert isinstance(bad, Failure)
    assert bad.attempts == 2
    assert bad.reason
    assert len(bad.reason) <= 500
    assert "\n" not in bad.reason
    # and it is remembered, as the label is
    with Labeller(ORACLE, LabelStore(tmp_path / "labels.db"), executor=SerialExecutor()) as labeller:
        assert labeller.label([structure(3), structure(6)])[0] == bad
        assert (labeller.counts.computed, labeller.counts.reused) == (0, 1)


@pytest.mark.parametrize("fault", ["noise", "leaves"])
def test_habits_that_harm_no_label_harm_nothing_else(tmp_path, monkeypatch, fault):
    monkeypatch.setenv(FAULT, fault)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = attempt(ORACLE, structure(3))
    assert outcome.reason == ""
    assert outcome.labels is not None
    assert os.path.samefile(os.getcwd(), tmp_path)


@pytest.mark.slow
def test_worker_processes_survive_faults_and_keep_stdout_clean(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    for fault in ("noise", "KeyboardInterrupt", "sys.exit"):
        monkeypatch.setenv(FAULT, fault)
        with Labeller(ORACLE, n_workers=1, retries=0) as labeller:
            bad, good = labeller.label([structure(3), structure(6)])
        assert isinstance(good, Labels)
        assert isinstance(bad, Labels if fault == "noise" else Failure)
    out, err = capfd.readouterr()
    assert out == ""
    assert "SCF converged" in err
    assert "warning (worker): basis set superposition" in err


class PressesCtrlC:
    """An oracle during which the user presses Ctrl-C, once; with ``swallow`` it goes on regardless."""

    jittable, name, identity = False, "slow", "slow"

    def __init__(self, swallow):
        self.swallow = swallow

    def label(self, system):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if not self.swallow:
                raise
        return Labels.create(N, 0.0, FORCES)


@pytest.fixture
def listening():
    """A process that hears Ctrl-C: one started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("swallow", [False, True])
def test_the_users_own_interrupt_ends_the_run(listening, swallow):
    with (
        pytest.raises(KeyboardInterrupt),
        Labeller(PressesCtrlC(swallow), executor=SerialExecutor()) as labeller,
    ):
        labeller.label([structure(3)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_factories_that_fail_say_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_oracle_module.py").write_text("1 / 0")
    (tmp_path / "unfinished_oracle_module.py").write_text("def make(:")
    (tmp_path / "leaving_oracle_module.py").write_text("raise SystemExit(1)")
    for module, message in (
        ("broken", "fails while it is imported: ZeroDivisionError: division by zero"),
        ("unfinished", "fails while it is imported: SyntaxError"),
        ("leaving", "fails while it is imported: SystemExit"),
        ("absent", "cannot import"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            import_factory(f"{module}_oracle_module:make")
        assert "\n" not in str(error.value)
    for name, message in (
        ("needs_an_argument", r"failed: TypeError: .*missing 1 required"),
        ("breaks_down", "failed: SystemExit: no licence"),
        ("structure", "failed: TypeError"),
    ):
        with pytest.raises(ValueError, match=message):
            make_calculator(f"test_faulty_oracles:{name}")
