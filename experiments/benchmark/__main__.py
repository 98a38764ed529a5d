"""Entry point: see ``experiments/benchmark/config.py``."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.config import PRESETS, Config
from experiments.benchmark.config import __doc__ as CLAIM
from experiments.lab.entry import run_experiment
from experiments.lab.paths import ELECTROLYTE
from mlipjax.files import write_atomic

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
    """Run all children in turn and print the table."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in config.structures:
            one, many = (Path(folder) / f"{name}_{n}.extxyz" for n in (1, config.batch))
            write_structures(name, one, 1)
            write_structures(name, many, config.batch)
            rows += _potential(config, name, one)
            rows += _training(config, name, one, many)
            _print(rows[-8:] if config.peer_python else rows[-4:])
    if config.mace_python is not None:
        rows += _mace(config)
    if config.replicas:
        rows += _dynamics(config)
    _print(rows)
    if config.json is not None:
        write_atomic(config.json, json.dumps(rows, indent=1))


def _potential(config: Config, name: str, file: Path) -> list[dict[str, Any]]:
    """Energy, forces and stress of one structure; ratios to this code with the entry points' malloc."""
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(config.turns):
        for label, malloc in (("", _MALLOC), (", default malloc", {})):
            ours = _child(config, "calculator", config.model, file, config.rounds, malloc)
            results.setdefault(f"mlipjax{label}", []).append(ours)
            if config.peer_python is not None:
                results.setdefault(f"nequix{label}", []).append(_peer(config, "calculator", file, malloc))
    return _rows(f"{name} E+F+S: ", results, "mlipjax")


def _training(config: Config, name: str, one: Path, many: Path) -> list[dict[str, Any]]:
    """A gradient relative to the force call it contains, and a step of a batch relative to the peer's."""
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(config.turns):
        for task, what in (("force", "force call"), ("gradient", "training gradient")):
            results.setdefault(what, []).append(_child(config, task, config.model, one, config.rounds, _MALLOC))
    rows = _rows(f"{name}: ", results, "force call")
    rounds = max(1, config.rounds // 3)
    label = f"{name} training step of {config.batch}: "
    steps = {"mlipjax": [_child(config, "step", config.model, many, rounds, _MALLOC)]}
    if config.peer_python is not None:
        steps["nequix"] = [_peer(config, "step", many, _MALLOC, rounds)]
    return rows + _rows(label, steps, "mlipjax")


def _mace(config: Config) -> list[dict[str, Any]]:
    """Energy, forces and stress, and a training step, of one random MACE in three codes that take turns."""
    assert config.mace_python is not None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.model"
        made = _run(config, [str(config.mace_python), str(_PEERS / "mace_peer.py"), "make", str(weights)], {})
        if "failed" in made:
            raise RuntimeError(f"mace-torch made no model: {made['failed']}")
        peers = {"mace-torch": (config.mace_python, "mace_peer.py"), "mlip": (config.mlip_python, "mlip_peer.py")}
        for name in config.mace_structures:
            for task, what, n_frames in (
                ("calculator", "E+F+S", 1),
                ("step", f"training step of {_MACE_BATCH}", _MACE_BATCH),
            ):
                file = Path(folder) / f"{name}_{n_frames}.extxyz"
                write_structures(name, file, n_frames)
                results: dict[str, list[dict[str, Any]]] = {}
                for _ in range(config.turns):
                    ours = _child(config, task, str(weights), file, config.rounds, _MALLOC)
                    results.setdefault("mlipjax", []).append(ours)
                    for label, (python, script) in peers.items():
                        if python is not None:
                            command = [
                                str(python),
                                str(_PEERS / script),
                                task,
                                str(weights),
                                str(file),
                                str(config.rounds),
                            ]
                            results.setdefault(label, []).append(_run(config, command, _MALLOC))
                rows += _rows(f"MACE 128x0e, {name}, {what}: ", results, "mlipjax")
                _print(rows[-len(results) :])
    return rows


def _dynamics(config: Config) -> list[dict[str, Any]]:
    """MD of the embedded model per step and replica, relative to the bare force call."""
    file = ELECTROLYTE
    results = {
        "bare force call": [_child(config, "force_md", "universal", file, 100, _MALLOC)],
        "bare force call, tightest table": [_child(config, "force", "universal", file, 100, _MALLOC)],
    }
    for n in config.replicas:
        results[f"MD step, R = {n}"] = [_child(config, f"md{n}", "universal", file, 10, _MALLOC)]
    rows = _rows("embedded model, 47 atoms: ", results, "bare force call")
    for row in rows:
        row["us_per_atom_step"] = 1e3 * row["cpu_ms"] / 47
    return rows


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


def _child(
    config: Config, task: str, model: str, structure: Path, rounds: int, malloc: dict[str, str]
) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark.cases", task, model, str(structure), str(rounds)]
    result = _run(config, command, malloc)
    if "failed" in result:
        raise RuntimeError(f"{' '.join(command)}: {result['failed']}")
    return result


def _peer(
    config: Config, task: str, structure: Path, malloc: dict[str, str], rounds: int | None = None
) -> dict[str, Any]:
    from mlipjax.models import registry

    path = Path(config.model)
    weights = path if path.exists() else registry.fetch(registry.find_entry(config.model))
    command = [
        str(config.peer_python),
        str(_PEERS / "nequix_peer.py"),
        task,
        str(weights),
        str(structure),
        str(rounds or config.rounds),
    ]
    return _run(config, command, malloc)


def _run(config: Config, command: list[str], malloc: dict[str, str]) -> dict[str, Any]:
    clean = {key: value for key, value in os.environ.items() if key not in _MALLOC}
    environment = {**clean, **malloc, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4, which mace-torch pins, loads its tables so
    core = min(os.sched_getaffinity(0)) if config.core is None else config.core
    limit = int(config.memory_GB * 2**30)

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    result = subprocess.run(
        command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False, preexec_fn=prepare
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        memory = any(
            word in result.stderr for word in ("RESOURCE_EXHAUSTED", "bad_alloc", "MemoryError", "Out of memory")
        )
        return {"failed": f"needs more than {config.memory_GB:g} GB" if memory else lines[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def write_structures(name: str, file: Path, n_frames: int) -> None:
    """Write ``n_frames`` structures: rattled silicon, or frames of the published 197-atom liquid."""
    from ase.build import bulk
    from ase.io import read, write

    from mlipjax.models import registry

    published = registry.data_folder() / "chclca" / "naive.extxyz"
    if name == "liquid" and published.exists():
        frames: Any = read(published, index=f":{n_frames}")
    else:
        frames = []
        for seed in range(n_frames):
            crystals = {"si64": bulk("Si", cubic=True) * (2, 2, 2), "cu108": bulk("Cu", cubic=True) * (3, 3, 3)}
            atoms = crystals[name] if name in crystals else _water()
            atoms.rattle(0.05, seed=seed)
            frames.append(atoms)
    for atoms in frames:
        atoms.calc = None
    write(file, frames)


def _water() -> Any:
    """As many atoms at the density of water, where the published liquid is not at hand."""
    from ase import Atoms
    from ase.build import molecule

    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[12.5] * 3, pbc=True)
    for index in np.ndindex(5, 5, 3):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(2.5 * np.array(index))
        atoms += water
    return atoms[:197]


def _print(rows: list[dict[str, Any]]) -> None:
    print("| what | " + " | ".join(_COLUMNS) + " |\n|" + "---|" * (len(_COLUMNS) + 1))
    for row in rows:
        cells = ["" if row.get(column) is None else f"{row[column]:.3g}" for column in _COLUMNS]
        print(f"| {row['what']} | " + " | ".join(cells) + " |")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(run_experiment(main, PRESETS, CLAIM))
