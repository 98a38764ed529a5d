"""Wall time of a band of 7 images of 61 atoms: mlipjax against ASE's NEB, same path, optimiser class, spring and fmax.

    python -m experiments.benchmark.bands --out runs/neb_speed.json
    python -m experiments.benchmark.bands --peer .venv-nequix/bin/python   # ASE with upstream Nequix's calculator, too

ASE runs three ways: one calculator for each image (its default), one calculator shared by all
(``allow_shared_calculator``), and with the calculator of upstream Nequix, shared, in its own environment. All
start from the same path with relaxed ends, in the same process (the peer: one after the other), and use FIRE with the
improved tangent and a climbing image.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

import ase.io
import tyro

import mlipjax
from experiments.benchmark.peers.timing import ase_band, timed
from mlipjax import runtime
from mlipjax.data import read_atoms
from mlipjax.defaults import SPRING
from mlipjax.files import write_atomic
from mlipjax.models import registry
from mlipjax.probes import initial_path, neb
from mlipjax.relaxation import relax
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure.

    Attributes:
        model: universal model.
        images: of the band, ends included.
        fmax: eV/Å.
        max_steps: of every optimiser.
        dtype: of mlipjax's band and of its ASE calculator.
        ase: how ASE gets mlipjax's energies: one calculator shared by all images, one for each; none skips it.
        peer: python of an environment with upstream nequix.
        out: JSON file.
    """

    model: str = "nequix-mp-1"
    images: int = 7
    fmax: float = 0.05
    max_steps: int = 300
    dtype: str = "float32"
    ase: tuple[Literal["shared", "each"], ...] = ("shared", "each")
    peer: Path | None = None
    out: Path = Path("runs/neb_speed.json")


def main(config: Config) -> None:
    """Measure, print and write."""
    runtime.prepare_process()
    model = mlipjax.load(config.model)
    given = [System.from_ase(a) for a in read_atoms(registry.data_folder() / "cr_sb2te3" / "neb_61_1-4.extxyz")]
    ends = relax(model, [given[0], given[-1]], fmax=config.fmax, dtype=config.dtype, max_steps=400)
    path = [dataclasses.replace(given[0], positions=p) for p in initial_path(given, config.images)]
    path = [ends.systems[0], *path[1:-1], ends.systems[1]]
    rows: dict[str, Any] = _Rows()

    def ours() -> dict[str, Any]:
        options = {"fmax": config.fmax, "dtype": config.dtype, "max_steps": config.max_steps}
        result = neb(model, path, relax_ends=False, **options)
        return {"steps": result.steps, "converged": result.converged, "barrier_eV": result.forward_barrier_eV}

    def calculator() -> Any:
        return mlipjax.Calculator(*model, dtype=config.dtype)

    rows["mlipjax, with compilation"] = timed(ours)
    rows["mlipjax, compiled"] = timed(ours)
    labels = {"shared": "shared calculator", "each": "a calculator per image"}
    for kind in config.ase:
        calculators = [calculator()] * len(path) if kind == "shared" else [calculator() for _ in path]
        for state in ("with compilation", "compiled"):
            images, each = [system.to_ase() for system in path], iter(calculators)
            band = functools.partial(ase_band, images, each.__next__, SPRING, config.fmax, config.max_steps)
            rows[f"ASE, {labels[kind]}, {state}"] = timed(band)
    if config.peer is not None:
        for name, row in run_peer(config, path).items():
            rows[name] = row
    report = {"rows": rows, "config": {k: str(v) for k, v in dataclasses.asdict(config).items()}}
    report |= {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "versions": runtime.versions()}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out, json.dumps(report, indent=1))


def run_peer(config: Config, path: list[System]) -> dict[str, Any]:
    """ASE with upstream Nequix's calculator, in a process of its own."""
    weights = registry.fetch(registry.find_entry(config.model))
    script = Path(__file__).parent / "peers" / "neb_peer.py"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "path.extxyz"
        ase.io.write(file, [system.to_ase() for system in path])
        settings = [str(config.peer), str(script), str(weights), str(file), str(config.fmax), str(config.max_steps)]
        done = subprocess.run([*settings, str(SPRING)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class _Rows(dict):
    """Prints every row as it comes."""

    def __setitem__(self, name: str, row: Any) -> None:
        print(f"{name:45s} {row}", flush=True)
        super().__setitem__(name, row)


if __name__ == "__main__":
    main(tyro.cli(Config))
