"""Entry point: see ``experiments/benchmark/config.py``."""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from experiments.benchmark.config import Config
from experiments.lab.display import Table, brief
from experiments.lab.entry import run_experiment
from experiments.lab.paths import ELECTROLYTE
from experiments.lab.record import Number
from experiments.lab.run import Outcome, Run
from mlipjax.data import read_atoms
from mlipjax.models import registry

_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    "MALLOC_MMAP_THRESHOLD_": "2147483648",
    "MALLOC_TOP_PAD_": "268435456",
}
_MACE_BATCH = 2
_ROOT = Path(__file__).resolve().parents[2]
_PEERS = Path(__file__).parent / "peers"
_COLUMNS = ("cpu_ms", "wall_ms", "first_s", "peak_MB", "ratio", "ratio_min", "us_per_atom_step")


def main(config: Config) -> None:
    """Run all children in turn, write ``results.json`` and print the table."""
    run = Run(config)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in config.structures:
            one, many = (write_structures(name, Path(folder), n) for n in (1, config.batch))
            for part in (_potential(config, name, one), _training(config, name, one, many)):
                run.console.print(table(part))
                rows += part
        if config.mace_python is not None:
            rows += _mace(config, Path(folder))
        if config.replicas:
            rows += _dynamics(config)
        if config.sizes:
            rows += _sizes(config, Path(folder))
    results = run.results({"rows": rows})
    run.finish(results, outcome(results))


def table(rows: list[dict[str, Any]]) -> Table:
    """Measurements, for the terminal."""
    return brief(("what", *_COLUMNS), [[row["what"], *(row.get(column) for column in _COLUMNS)] for row in rows])


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run says."""
    rows, settings = results["rows"], results["settings"]
    numbers = {f"CPU time, {row['what']}": Number(row.get("ratio"), "", int(settings["turns"])) for row in rows}
    verdict = "Numbers are ratios of CPU times to the first row of each group, medians over all turns, one core."
    return Outcome(verdict, "measured", numbers, [table(rows)])


def _potential(config: Config, name: str, file: Path) -> list[dict[str, Any]]:
    """Energy, forces and stress of one structure; ratios to this code with the entry points' malloc."""
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(config.turns):
        for label, malloc in (("", _MALLOC), (", default malloc", {})):
            ours = _ours(config, "calculator", config.model, file, config.rounds, malloc)
            results.setdefault(f"mlipjax{label}", []).append(ours)
            if config.peer_python is not None:
                results.setdefault(f"nequix{label}", []).append(_nequix(config, "calculator", file, malloc=malloc))
    return _rows(f"{name} E+F+S: ", results, "mlipjax")


def _training(config: Config, name: str, one: Path, many: Path) -> list[dict[str, Any]]:
    """A gradient relative to the force call it contains, and a step of a batch relative to the peer's."""
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(config.turns):
        for task, what in (("force", "force call"), ("gradient", "training gradient")):
            results.setdefault(what, []).append(_ours(config, task, config.model, one, config.rounds))
    rounds = max(1, config.rounds // 3)
    steps = {"mlipjax": [_ours(config, "step", config.model, many, rounds)]}
    if config.peer_python is not None:
        steps["nequix"] = [_nequix(config, "step", many, rounds)]
    label = f"{name} training step of {config.batch}: "
    return _rows(f"{name}: ", results, "force call") + _rows(label, steps, "mlipjax")


def _mace(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Energy, forces and stress, and a training step, of one random MACE in three codes that take turns."""
    weights = str(folder / "random.model")
    made = _peer(config, config.mace_python, "mace_peer.py", "make", weights, malloc={})
    if "failed" in made:
        raise RuntimeError(f"mace-torch made no model: {made['failed']}")
    peers = {"mace-torch": (config.mace_python, "mace_peer.py"), "mlip": (config.mlip_python, "mlip_peer.py")}
    rows: list[dict[str, Any]] = []
    tasks = (("calculator", "E+F+S", 1), ("step", f"training step of {_MACE_BATCH}", _MACE_BATCH))
    for name, (task, what, n_frames) in itertools.product(config.mace_structures, tasks):
        file = write_structures(name, folder, n_frames)
        results: dict[str, list[dict[str, Any]]] = {}
        for _ in range(config.turns):
            results.setdefault("mlipjax", []).append(_ours(config, task, weights, file, config.rounds))
            for label, (python, script) in peers.items():
                if python is not None:
                    found = _peer(config, python, script, task, weights, file, config.rounds)
                    results.setdefault(label, []).append(found)
        rows += _rows(f"MACE 128x0e, {name}, {what}: ", results, "mlipjax")
    return rows


def _dynamics(config: Config) -> list[dict[str, Any]]:
    """MD of the embedded model per step and replica, relative to the bare force call."""

    def ours(task: str, rounds: int) -> list[dict[str, Any]]:
        return [_ours(config, task, "universal", ELECTROLYTE, rounds)]

    results = {"bare force call": ours("force_md", 100), "bare force call, tightest table": ours("force", 100)}
    results |= {f"MD step, R = {n}": ours(f"md{n}", 10) for n in config.replicas}
    rows = _rows("embedded model, 47 atoms: ", results, "bare force call")
    return [{**row, "us_per_atom_step": 1e3 * row["cpu_ms"] / 47} for row in rows]


def _sizes(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Calls of the calculator with the embedded model at many sizes, and how their time grows."""
    files = {8 * repeat**3: write_structures(f"nacl{repeat}", folder, 1) for repeat in config.sizes}
    turns = {f"{n} atoms": [_ours(config, "calculator", "universal", file, config.rounds)] for n, file in files.items()}
    rows = _rows("embedded model, E+F+S: ", turns, next(iter(turns)))
    times = [row["cpu_ms"] for row in rows]
    rows = [{**row, "us_per_atom_step": 1e3 * row["cpu_ms"] / n} for row, n in zip(rows, files, strict=True)]
    exponent = np.polyfit(np.log(list(files)), np.log(times), 1)[0] if len(files) > 1 else None
    return [*rows, {"what": "embedded model, E+F+S: exponent of the number of atoms", "ratio": exponent}]


def _rows(prefix: str, results: dict[str, list[dict[str, Any]]], reference: str) -> list[dict[str, Any]]:
    """Medians over all turns, and ratios of CPU times (medians, minima) to the row named ``reference``."""
    rows = []
    for label, turns in results.items():
        if failed := [turn["failed"] for turn in turns if "failed" in turn]:
            rows.append({"what": f"{prefix}{label} ({failed[0]})"})
            continue
        cpu, wall = (1e3 * float(np.median([t for turn in turns for t in turn[kind]])) for kind in ("cpu", "wall"))
        first, peak = (float(np.median([turn[key] for turn in turns])) for key in ("first", "peak_MB"))
        least = 1e3 * min(t for turn in turns for t in turn["cpu"])
        measured = {"cpu_ms": cpu, "cpu_min_ms": least, "wall_ms": wall, "first_s": first, "peak_MB": peak}
        rows.append({"what": prefix + label, **measured})
    base = next(row for row in rows if row["what"] == prefix + reference)
    for row in rows:
        if "cpu_ms" in row:
            row["ratio"] = row["cpu_ms"] / base["cpu_ms"]
            row["ratio_min"] = row["cpu_min_ms"] / base["cpu_min_ms"]
    return rows


def _ours(
    config: Config, task: str, model: str, structure: Path, rounds: int, malloc: dict[str, str] = _MALLOC
) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark.cases", task, model, structure, rounds]
    result = _run(config, command, malloc)
    if "failed" in result:
        raise RuntimeError(f"{' '.join(map(str, command))}: {result['failed']}")
    return result


def _peer(
    config: Config, python: Path | None, script: str, *arguments: Any, malloc: dict[str, str] = _MALLOC
) -> dict[str, Any]:
    return _run(config, [python, _PEERS / script, *arguments], malloc)


def _nequix(
    config: Config, task: str, structure: Path, rounds: int = 0, malloc: dict[str, str] = _MALLOC
) -> dict[str, Any]:
    path = Path(config.model)
    weights = path if path.exists() else registry.fetch(registry.find_entry(config.model))
    rounds = rounds or config.rounds
    return _peer(config, config.peer_python, "nequix_peer.py", task, weights, structure, rounds, malloc=malloc)


def _run(config: Config, command: Sequence[Any], malloc: dict[str, str]) -> dict[str, Any]:
    clean = {key: value for key, value in os.environ.items() if key not in _MALLOC}
    environment = {**clean, **malloc, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4, which mace-torch pins, loads its tables so
    core = min(os.sched_getaffinity(0)) if config.core is None else config.core
    limit = int(config.memory_GB * 2**30)

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    words = [str(word) for word in command]
    result = subprocess.run(
        words, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False, preexec_fn=prepare
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        memory = any(
            word in result.stderr for word in ("RESOURCE_EXHAUSTED", "bad_alloc", "MemoryError", "Out of memory")
        )
        return {"failed": f"needs more than {config.memory_GB:g} GB" if memory else lines[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def write_structures(name: str, folder: Path, n_frames: int) -> Path:
    """Write ``n_frames`` structures: rattled crystals, or frames of the published 197-atom liquid."""
    published, frames = registry.data_folder() / "chclca" / "naive.extxyz", []
    if name == "liquid" and published.exists():
        frames = read_atoms(published)[:n_frames]
    else:
        for seed in range(n_frames):
            crystals = {"si64": bulk("Si", cubic=True) * (2, 2, 2), "cu108": bulk("Cu", cubic=True) * (3, 3, 3)}
            if name.startswith("nacl"):
                cell = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
                crystals[name] = cell * ((int(name.removeprefix("nacl")),) * 3)
            atoms = crystals[name] if name in crystals else _water()
            atoms.rattle(0.05, seed=seed)
            frames.append(atoms)
    for atoms in frames:
        atoms.calc = None
    file = folder / f"{name}_{n_frames}.extxyz"
    write(file, frames)
    return file


def _water() -> Any:
    """As many atoms at the density of water, where the published liquid is not at hand."""
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[12.5] * 3, pbc=True)
    for index in np.ndindex(5, 5, 3):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(2.5 * np.array(index))
        atoms += water
    return atoms[:197]


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
