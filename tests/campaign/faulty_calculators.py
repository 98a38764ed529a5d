"""Calculators that go wrong in every way that a program made by others can; named ``campaign.faulty_calculators:NAME``.

Each is a harmonic spring of every atom to where it is in the file, spoilt in one way. ``OUTCOMES`` says for each what
the right outcome is: ``label`` (the right label is stored), ``failure`` (a reason is recorded, no label) or ``death``
(the same, but only from a process of its own: it would take the whole program with it).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Spring(Calculator):
    """Energies and forces of springs to the origin; ``spoil`` changes the results or does harm."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE's own form)

    def __init__(self, spoil: Callable[[Spring, Atoms], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.spoil = spoil

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = tuple(all_changes)
    ) -> None:
        """Energy and forces, then what is wrong."""
        super().calculate(atoms, properties, system_changes)
        energy = 0.5 * float(np.sum(self.atoms.positions**2))
        self.results = {"energy": energy, "free_energy": energy, "forces": -self.atoms.positions.copy()}
        if self.spoil is not None:
            self.spoil(self, atoms)


def good() -> Calculator:
    """Nothing is wrong."""
    return Spring()


def _result(name: str, change: Callable[[Any], Any]) -> Callable[[], Calculator]:
    """A calculator of which one result is changed."""

    def spoil(calculator: Spring, atoms: Atoms) -> None:
        calculator.results[name] = change(calculator.results[name])

    return lambda: Spring(spoil)


def _harm(action: Callable[[], Any]) -> Callable[[], Calculator]:
    """A calculator that does something besides."""
    return lambda: Spring(lambda calculator, atoms: action())


def _raise(error: BaseException) -> Callable[[], Calculator]:
    def action() -> None:
        raise error

    return _harm(action)


class Unpicklable(RuntimeError):
    """An error that cannot travel between processes."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__("unpicklable")
        self.lock = open(os.devnull)  # noqa: SIM115


def _with(array: np.ndarray, value: Any) -> np.ndarray:
    array = array.astype(np.result_type(array, type(value)))
    array[0, 0] = value
    return array


forces_of_one_atom_less = _result("forces", lambda f: f[:-1])
forces_of_one_row = _result("forces", lambda f: f[:1])
forces_flat = _result("forces", lambda f: f.reshape(-1))
forces_transposed = _result("forces", lambda f: f.T)
forces_complex = _result("forces", lambda f: f + 1j)
forces_nan = _result("forces", lambda f: _with(f, float("nan")))
forces_infinite = _result("forces", lambda f: _with(f, float("inf")))
forces_huge = _result("forces", lambda f: _with(f, 1e300))
forces_text = _result("forces", lambda f: f.astype(str))
forces_objects = _result("forces", lambda f: f.astype(object))
forces_of_objects = _result("forces", lambda f: np.array([[None] * 3] * len(f), object))
forces_none = _result("forces", lambda f: None)
forces_ragged = _result("forces", lambda f: [row[: 1 + index % 3] for index, row in enumerate(f.tolist())])
energy_none = _result("energy", lambda e: None)
energy_nan = _result("energy", lambda e: float("nan"))
energy_huge = _result("energy", lambda e: 1e300)
energy_complex = _result("energy", lambda e: complex(e, 1.0))
energy_text = _result("energy", lambda e: "-1.5 eV")
energy_array = _result("energy", lambda e: np.array([e, e]))

raises_value_error = _raise(ValueError("no convergence"))
raises_runtime_error = _raise(RuntimeError("line one\nline two"))
raises_memory_error = _raise(MemoryError())
raises_system_exit = _raise(SystemExit("the licence has expired"))
raises_interrupt = _raise(KeyboardInterrupt())
raises_recursion_error = _raise(RecursionError("too deep"))
raises_unpicklable = _harm(lambda: (_ for _ in ()).throw(Unpicklable(1, 2)))
raises_long = _raise(ValueError("x" * 10_000_000))

exits = _harm(lambda: os._exit(3))
crashes = _harm(lambda: ctypes.string_at(0))
hangs = _harm(lambda: time.sleep(600))
swallows_and_hangs = _harm(lambda: _stubborn())


def _stubborn() -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except Exception:
            continue


changes_folder = _harm(lambda: os.chdir("/"))
writes_to_stdout = _harm(lambda: print("SCF converged\r\n" * 1000))
writes_odd_bytes = _harm(lambda: os.write(1, b"\xff\xfe\x00" * 100))
closes_stdout = _harm(lambda: sys.stdout.close())
starts_slowly = _harm(lambda: time.sleep(1.0))
leaves_a_process = _harm(
    lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"], start_new_session=True)
)
changes_environment = _harm(lambda: os.environ.update(OMP_NUM_THREADS="77", TZ="UTC"))
changes_recursion = _harm(lambda: sys.setrecursionlimit(200_000))
changes_errors = _harm(lambda: np.seterr(all="raise"))
seeds_numpy = _harm(lambda: np.random.seed(0))  # noqa: NPY002


def moves_atoms() -> Calculator:
    """Changes the structure that it was given, after it has labelled it."""

    def spoil(calculator: Spring, atoms: Atoms) -> None:
        atoms.positions += 1.0
        atoms.set_cell(2.0 * atoms.cell.array)

    return Spring(spoil)


_SHARED = np.zeros((64, 3))


def reuses_memory() -> Calculator:
    """Forces lie in memory that the next calculation overwrites."""

    def spoil(calculator: Spring, atoms: Atoms) -> None:
        view = _SHARED[: len(atoms)]
        view[:] = calculator.results["forces"]
        calculator.results["forces"] = view

    return Spring(spoil)


class _Remembering(Spring):
    """Says what it computed first, whatever it is asked about."""

    def get_property(self, name: str, atoms: Any = None, allow_calculation: bool = True) -> Any:
        """A result that is there already."""
        return self.results[name]


def remembers() -> Calculator:
    """Has the results of another structure, of as many atoms."""
    calculator = _Remembering()
    calculator.calculate(Atoms("H4", positions=np.arange(12.0).reshape(4, 3)))
    return calculator


def lacks_forces() -> Calculator:
    """Has an energy only, although it says otherwise."""
    return Spring(lambda calculator, atoms: calculator.results.pop("forces"))


def lacks_everything() -> Calculator:
    """Has no results at all."""
    return Spring(lambda calculator, atoms: calculator.results.clear())


def no_calculator() -> Any:
    """A factory that returns no calculator."""
    return object()


def factory_raises() -> Any:
    """The factory itself fails."""
    raise ImportError("no such licence")


_SPOILT = {
    "forces_of_one_atom_less forces_of_one_row forces_flat forces_transposed forces_complex forces_nan forces_infinite "
    "forces_huge forces_text forces_of_objects forces_none forces_ragged energy_none energy_nan energy_huge "
    "energy_complex energy_text energy_array raises_value_error raises_runtime_error raises_memory_error "
    "raises_system_exit raises_interrupt raises_recursion_error raises_unpicklable raises_long lacks_forces "
    "lacks_everything no_calculator factory_raises forces_objects moves_atoms "
    "remembers": "failure",
    "hangs": "failure",
    "exits crashes swallows_and_hangs": "death",
    "good changes_folder writes_to_stdout writes_odd_bytes starts_slowly leaves_a_process reuses_memory "
    "changes_environment changes_recursion seeds_numpy": "label",
    "closes_stdout changes_errors": "label",
}
OUTCOMES = {name: outcome for names, outcome in _SPOILT.items() for name in names.split()}
