"""Calculator factories for the tests, importable in worker processes.

A shared folder, named by an environment variable, records every calculation: one file for its start, one for its end.
"""

import os
import signal
import time
import uuid
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

LOG = "MLIPJAX_TEST_LOG"
PAUSE = "MLIPJAX_TEST_PAUSE"


def log(word):
    (Path(os.environ[LOG]) / f"{word}-{uuid.uuid4().hex}").touch()


def logged(folder, word):
    return len(list(Path(folder).glob(f"{word}*")))


class Recorded(LennardJones):
    """Lennard-Jones that tells a folder when it starts and ends, and does what the first atom's element asks for."""

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        number = int(atoms.numbers[0])
        log(f"start{number}")
        if number == 2:  # helium refuses
            raise RuntimeError("no convergence")
        if number == 3:  # lithium takes for ever
            time.sleep(60)
        if number == 4:  # beryllium dies
            os._exit(9)
        if number == 5 and logged(os.environ[LOG], "start5") == 1:  # boron fails once
            raise RuntimeError("bad luck")
        if number == 6:  # carbon is deaf to signals, like native code that never returns to Python
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(60)
        time.sleep(float(os.environ.get(PAUSE, 0)))
        super().calculate(atoms, properties, system_changes)
        log(f"end{number}")


def recorded():
    return Recorded(sigma=3.4, epsilon=0.01, rc=6.0, smooth=True)


def recorded_twice_as_deep():
    return Recorded(sigma=3.4, epsilon=0.02, rc=6.0, smooth=True)


def recorded_softly():
    return Recorded(sigma=0.9, epsilon=0.01, rc=6.0, smooth=True)


class NotANumber(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.results = {"energy": np.nan, "forces": np.zeros((len(atoms), 3))}


def nonsense():
    return "not a calculator"


def not_a_number():
    return NotANumber()
