"""Speed of the potential, of a training step and of MD, as ratios measured side by side in one run.

    python -m experiments.benchmark                                            # this code alone
    python -m experiments.benchmark --peer-python PATH/bin/python              # against upstream nequix

Every measurement is a process of its own, pinned to one core, float32, Eigen single-threaded; this code and the peer
take turns, and medians over all turns are compared. CPU time is given beside wall time, because a busy machine spoils
the latter first. Both sides include the neighbour list of one structure, as an ASE calculator needs it. Compilation is
reported apart. "default malloc" lets glibc return memory to the system after every call, as it does unless told
otherwise; the entry points of this project tell it otherwise (``runtime.setup_allocator``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    "MALLOC_MMAP_THRESHOLD_": "2147483648",
    "MALLOC_TOP_PAD_": "268435456",
}
_ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure.

    Attributes:
        model: weights for the comparison; must be a .nqx file or a registry name of one for a peer to read.
        peer_python: interpreter of an environment with nequix; without it only this code is measured.
        structures: which systems: si64, liquid (197 atoms).
        rounds: evaluations per turn.
        turns: turns of each side.
        md_steps: MD steps per measurement with the embedded model; 0 skips MD.
        json: file for the numbers.
        task: what one child process measures; for internal use.
        structure: its structure; for internal use.
    """

    model: str = "nequix-mp-1"
    peer_python: Path | None = None
    structures: tuple[Literal["si64", "liquid"], ...] = ("si64", "liquid")
    rounds: int = 5
    turns: int = 2
    md_steps: int = 200
    json: Path | None = None
    task: Literal["all", "calculator", "train", "md"] = "all"
    structure: Path | None = None


def main(config: Config) -> None:
    """Run all children in turn and print the table."""
    if config.task != "all":
        print(json.dumps({"calculator": _calculator, "train": _train, "md": _md}[config.task](config)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in config.structures:
            file = Path(folder) / f"{name}.extxyz"
            _write_structure(name, file)
            rows += _compare(config, name, file)
    if config.md_steps:
        rows += _child(config, "md", _ROOT / "data" / "electrolyte.extxyz", {})["rows"]
    _print(rows)
    if config.json is not None:
        config.json.write_text(json.dumps(rows, indent=1))


def _compare(config: Config, name: str, file: Path) -> list[dict[str, Any]]:
    measurements: dict[str, list[dict[str, Any]]] = {}

    def record(label: str, result: dict[str, Any]) -> None:
        measurements.setdefault(label, []).append(result)

    for _ in range(config.turns):
        record("mlipjax", _child(config, "calculator", file, _MALLOC))
        record("mlipjax, default malloc", _child(config, "calculator", file, {}))
        if config.peer_python is not None:
            record("nequix", _peer(config, file, _MALLOC))
            record("nequix, default malloc", _peer(config, file, {}))
    record("mlipjax, training gradient", _child(config, "train", file, _MALLOC))
    rows = []
    for label, results in measurements.items():
        cpu, wall = ([t for result in results for t in result[kind]] for kind in ("cpu", "wall"))
        rows.append(
            {
                "what": f"{name}: {label}",
                "cpu_ms": 1e3 * float(np.median(cpu)),
                "wall_ms": 1e3 * float(np.median(wall)),
                "first_s": float(np.median([result["first"] for result in results])),
                "peak_MB": max(result["peak_MB"] for result in results),
            }
        )
    _add_ratios(rows, name)
    return rows


def _add_ratios(rows: list[dict[str, Any]], name: str) -> None:
    by_name = {row["what"]: row for row in rows}
    ours = by_name[f"{name}: mlipjax"]
    for row in rows:
        row["cpu_ratio"] = row["cpu_ms"] / ours["cpu_ms"]
        row["wall_ratio"] = row["wall_ms"] / ours["wall_ms"]


def _child(config: Config, task: str, structure: Path, malloc: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark", "--task", task, "--structure", str(structure)]
    command += ["--model", config.model, "--rounds", str(config.rounds), "--md-steps", str(config.md_steps)]
    return _run(command, malloc)


def _peer(config: Config, structure: Path, malloc: dict[str, str]) -> dict[str, Any]:
    from mlipjax.models import registry

    path = Path(config.model)
    weights = path if path.exists() else registry.fetch(registry.find_entry(config.model))
    script = _ROOT / "experiments" / "peers" / "nequix_peer.py"
    return _run([str(config.peer_python), str(script), str(weights), str(structure), str(config.rounds)], malloc)


def _run(command: list[str], malloc: dict[str, str]) -> dict[str, Any]:
    clean = {key: value for key, value in os.environ.items() if key not in _MALLOC}
    environment = {**clean, **malloc, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    core = min(os.sched_getaffinity(0))
    result = subprocess.run(
        command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip().splitlines()[-1]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def _write_structure(name: str, file: Path) -> None:
    from ase.build import bulk, molecule
    from ase.io import read, write

    from mlipjax.models import registry

    if name == "si64":
        atoms = bulk("Si", cubic=True) * (2, 2, 2)
        atoms.rattle(0.05, seed=0)
        write(file, atoms)
        return
    published = registry.data_folder() / "chclca" / "naive.extxyz"
    if published.exists():
        frames: Any = read(published, index="0:1")
        write(file, frames[0])
        return
    # as many atoms at the density of water, where the published liquid is not at hand
    rng = np.random.default_rng(0)
    water = molecule("H2O")
    atoms = water.copy()
    atoms.set_cell([12.5] * 3)
    atoms.pbc = True
    for index in np.ndindex(5, 5, 3):
        if len(atoms) < 197:
            moved = water.copy()
            moved.rotate(rng.uniform(0, 360), rng.normal(size=3))
            moved.translate(2.5 * np.array(index) + [2.5, 2.5, 4.0])
            atoms += moved
    write(file, atoms[:197])


def _time(function: Any, rounds: int) -> dict[str, Any]:
    began = time.perf_counter()
    function()
    first = time.perf_counter() - began
    wall, cpu = [], []
    for _ in range(rounds):
        began, busy = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "first": first, "peak_MB": peak}


def _calculator(config: Config) -> dict[str, Any]:
    """Energy, forces and stress through the ASE calculator, float32."""
    from ase.io import read

    import mlipjax

    atoms: Any = read(str(config.structure))
    atoms.calc = mlipjax.Calculator(*mlipjax.load(config.model), dtype="float32")
    rng = np.random.default_rng(0)

    def evaluate() -> None:
        atoms.positions += 1e-6 * rng.normal(size=atoms.positions.shape)
        atoms.get_potential_energy()

    return _time(evaluate, config.rounds)


def _train(config: Config) -> dict[str, Any]:
    """Gradient of an energy, force and stress loss with respect to all parameters, one structure."""
    import jax
    import jax.numpy as jnp
    from ase.io import read

    import mlipjax
    from mlipjax.graph import batch_graphs

    atoms: Any = read(str(config.structure))
    potential, params = mlipjax.load(config.model)
    graph = jax.tree.map(jnp.asarray, batch_graphs([mlipjax.System.from_ase(atoms)], potential.cutoff))

    @jax.jit
    def gradient(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            p = potential.apply(params, graph)
            return jnp.sum(p.energy**2) + jnp.sum(p.forces**2) + jnp.sum(p.stress**2)

        return jax.grad(loss)(params)

    return _time(lambda: jax.block_until_ready(gradient(params)), config.rounds)


def _md(config: Config) -> dict[str, Any]:
    """MD of the embedded model: microseconds per atom and step for R replicas, beside the bare force call."""
    import jax
    import jax.numpy as jnp
    from ase.io import read

    import mlipjax
    from mlipjax import md, runtime
    from mlipjax.graph import batch_graphs

    runtime.setup_allocator()
    atoms: Any = read(str(config.structure))
    system = mlipjax.System.from_ase(atoms)
    potential, params = mlipjax.load("universal")
    ensemble = md.make_ensemble("nvt", timestep_fs=0.5, temperature_K=300.0)
    limits = md.default_limits(300.0, len(atoms))
    spec = md.TableSpec.for_systems([system], potential.cutoff)
    graph = batch_graphs([system], potential.cutoff, n_atoms=len(atoms), n_neighbors=spec.n_neighbors)
    graph = jax.tree.map(jnp.asarray, graph)
    force = jax.jit(potential.apply)
    bare = _time(lambda: jax.block_until_ready(force(params, graph)), config.md_steps)
    steps = 10

    def measure(replicas: int) -> float:
        state = md.init(potential, spec, params, system, ensemble, jax.random.key(0), replicas)
        advance = jax.jit(md.chunk(potential, spec, steps))
        find = jax.jit(lambda state: md.rebuild(spec, state))

        def run() -> None:
            nonlocal state
            state, _ = advance(params, find(state), ensemble, limits)
            jax.block_until_ready(state)

        return float(np.median(_time(run, max(3, config.md_steps // steps))["cpu"])) / (steps * replicas)

    rows = [{"what": "embedded model, 47 atoms: bare force call", "cpu_ms": 1e3 * float(np.median(bare["cpu"]))}]
    for replicas in (1, 4, 16):
        per_step = measure(replicas)
        rows.append(
            {
                "what": f"embedded model, 47 atoms: MD step per replica, R = {replicas}",
                "cpu_ms": 1e3 * per_step,
                "us_per_atom_step": 1e6 * per_step / len(atoms),
                "cpu_ratio": 1e3 * per_step / rows[0]["cpu_ms"],
            }
        )
    return {"rows": rows}


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ["cpu_ms", "wall_ms", "first_s", "peak_MB", "cpu_ratio", "wall_ratio", "us_per_atom_step"]
    print("| what | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in rows:
        cells = ["" if row.get(column) is None else f"{row[column]:.3g}" for column in columns]
        print(f"| {row['what']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
