"""How long a loop takes whose labels are slow, with and without work behind them (table in docs/tutorials/periodic.md).

PYTHONPATH=. python tests/finetuning/in_flight_time.py SECONDS   (of a label, which sleeps; two workers)
"""

import dataclasses
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
from finetuning.loop_case import CONFIG, atoms, case, molecule, start

from mlipjax.finetuning.host import HostLoop
from mlipjax.md.make import make_ensemble
from mlipjax.oracles import Labeller, Teacher

ROUNDS = 4
STRUCTURES = [atoms(), molecule()]


class Sleeping(Teacher):
    """Takes its time, of which the processor sees nothing."""

    seconds = 0.0

    def label(self, system):
        time.sleep(self.seconds)
        return super().label(system)


class Waiting(Labeller):
    """Begins no label before all are waited for."""

    def start(self, systems):
        pass


def loop(setup, oracle, params, controls, labeller=Labeller, **options):
    """Seconds of a run, and of its stages."""
    state, stages, last = start(setup, params, controls, n_replicas=1, structures=STRUCTURES), {}, [0.0, ""]

    def tell(piece):
        now = time.monotonic()
        stages[last[1]] = stages.get(last[1], 0.0) + now - last[0]
        last[:] = now, piece.stage

    with ThreadPoolExecutor(2) as threads, labeller(oracle, executor=threads) as labels:
        begun = time.monotonic()
        last[0] = begun
        HostLoop(setup, labels, controls, None, tell, **options).run(state, ROUNDS)
    return time.monotonic() - begun, {name: round(seconds, 1) for name, seconds in stages.items() if name}


def main(seconds):
    jax.config.update("jax_enable_x64", True)
    setup, teacher, params, controls = case(
        dataclasses.replace(CONFIG, train_steps=200, estimate_shift=True), structures=STRUCTURES
    )
    # a potential of random parameters: short steps keep its atoms where they are
    slow = make_ensemble("nvt", timestep_fs=0.02, temperature_K=100.0)
    controls = controls.replace(systems=tuple(own.replace(ensemble=slow) for own in controls.systems))
    systems = tuple(
        dataclasses.replace(own, labels_per_replica=2, chunks_per_label=80, steps_per_chunk=10) for own in setup.systems
    )
    setup, oracle = dataclasses.replace(setup, systems=systems), Sleeping(teacher.potential, teacher.params)
    print("compiling", *loop(setup, oracle, params, controls), flush=True)
    print("no sleep", *loop(setup, oracle, params, controls), flush=True)
    Sleeping.seconds = seconds
    kinds = {"wait": {"labeller": Waiting}, "default": {}, "asynchronous": {"asynchronous": True}}
    for number in range(3):
        for name, options in kinds.items():
            print(number, name, *loop(setup, oracle, params, controls, **options), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
