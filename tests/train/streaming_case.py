"""Peak memory of a fine-tune on labelled structures: ``python streaming_case.py FOLDER STRUCTURES``; prints JSON.

A process of its own for ``test_streaming.py``. What counts is the process's own memory (``RssAnon``): pages of mapped
files belong to the system, which takes them back when it needs them. ``held`` is what is left of it after an epoch when
freed memory has been given back; the peak has the temporaries of a step too, which come and go by tens of MB.
"""

import ctypes
import json
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tiny_potential import SPECIES, init_params, random_system, tiny_potential

from mlipjax.data import Example, read_dataset, write_store
from mlipjax.finetuning import FinetuneSettings, finetune
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.potential import Model
from mlipjax.system import Labels

ATOMS = 32


def own_memory():
    """MB that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def examples(n):
    """Structures of ten compositions with labels of some size, made one by one."""
    rng = np.random.default_rng(0)
    kinds = rng.choice(np.array(SPECIES, np.int32), (10, ATOMS))
    for index in range(n):
        system = random_system(rng, ATOMS).replace(atomic_numbers=kinds[index % 10])
        forces = 0.1 * rng.normal(size=(ATOMS, 3))
        labels = Labels.create(ATOMS, rng.normal(), forces - forces.mean(axis=0))
        yield Example(system, labels, {"run": index % 20})


@contextmanager
def peak(found, stage):
    """Largest memory while the body runs, sampled, and seconds."""
    done = threading.Event()
    start, highest = time.monotonic(), [own_memory()]

    def sample():
        while not done.wait(0.005):
            highest.append(max(highest.pop(), own_memory()))

    thread = threading.Thread(target=sample)
    thread.start()
    yield
    done.set()
    thread.join()
    found[stage] = {"MB": round(highest[0], 1), "seconds": round(time.monotonic() - start, 1)}


class Held(FinetuneListener):
    def epoch(self, record):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.memory = round(own_memory(), 1)


def main(folder, n):
    found, store = {}, Path(folder) / str(n)
    if not store.exists():
        with peak(found, "convert"):
            write_store(store, examples(n))
    with peak(found, "read"):
        data = read_dataset(store)
    potential = tiny_potential()
    # labels and structures mean nothing, and the doctor would say so
    settings = FinetuneSettings(
        epochs=1, batch_size=64, anchor="none", allow_e0_mismatch=True, ignore=("units", "sign", "duplicates")
    )
    params, held = init_params(potential, dtype=np.float32), Held()
    train, valid = data.subset(range(256, n)), data.subset(range(256))
    with peak(found, "finetune"):
        finetune(Model(potential, params), train, valid, settings=settings, listener=held)
    found["finetune"]["held"] = held.memory
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
