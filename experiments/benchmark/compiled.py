"""Ten programs as XLA compiles them for an H200, without one.

    python -m experiments.benchmark.compiled [MODEL[:BACKEND] [PROGRAM ...]]

Needs the plugin (``pip install "jax[cuda13]"`` of the same jax) in an environment of its own; no driver, no GPU. For
each program: kernels that are launched (in a loop, times its iterations where their number is known; of molecular
dynamics per step), bytes of temporaries, bytes that kernels read and write (their operands and results; a gather counts
the rows it reads), and the floor that follows from both: bytes over bandwidth plus a launch for each kernel.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk

import mlipjax
from mlipjax import md
from mlipjax.graph import batch_graphs
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.potential import apply
from mlipjax.train import TrainState, make_batch, train_step

BANDWIDTH, LAUNCH = 4.8e12, 2.5e-6
"""Of an H200: bytes a second, seconds."""

H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448  shared_memory_per_core: 233472
  registers_per_block_limit: 65536  registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000  device_memory_size: 150754820096  l2_cache_size: 52428800
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""

_NO_KERNEL = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "while", "conditional", "call", "async-start", "opt-barrier",
}  # fmt: skip
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program as a GPU would run it.

    Attributes:
        kernels: launched.
        temporaries: bytes.
        traffic: bytes read and written by kernels.
        text: of the optimised program.
    """

    kernels: int
    temporaries: int
    traffic: int
    text: str

    @property
    def faults(self) -> list[str]:
        """Parts that no float32 program should hold: doubles, calls of the host, solvers of dense matrices."""
        signs = {"float64": r"\bf64\[", "host": r"callback|host_compute", "solver": r"cusolver|triangular_solve"}
        return [name for name, sign in signs.items() if re.search(sign, self.text)]

    @property
    def floor(self) -> float:
        """Seconds that the program takes at least."""
        return self.traffic / BANDWIDTH + self.kernels * LAUNCH


def gpu_device() -> Any:
    """An H200 that programs are compiled for; to be asked for before any other device.

    Raises:
        RuntimeError: if the plugin is not there.
    """
    # the plugin's checks of its libraries want a driver
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    from jax.experimental import topologies

    return topologies.get_topology_desc("h200", platform="cuda", target_config=H200, topology="1x1x1").devices[0]


def compile_for(device: Any, function: Callable[..., Any], *arguments: Any, steps: int = 1) -> Compiled:
    """Compile a jitted function for a device that need not be there.

    Args:
        device: from ``gpu_device``.
        function: jitted.
        arguments: arrays or shapes, and static ones.
        steps: iterations of the loop around everything, by which counts are divided.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)

    def placed(leaf: Any) -> Any:
        if not hasattr(leaf, "shape"):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    compiled = function.lower(*jax.tree.map(placed, arguments)).compile()
    text = compiled.as_text()
    kernels, traffic = _cost(_computations(text), "ENTRY")
    return Compiled(kernels // steps, compiled.memory_analysis().temp_size_in_bytes, traffic // steps, text)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """A line of an optimised program: its name, the bytes of its result, what it does with which operands."""

    name: str
    bytes: int
    operation: str
    operands: tuple[str, ...]
    rest: str

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations that it calls."""
        found = []
        for attribute in attributes:
            for names in re.findall(attribute + r"=\{?((?:%[\w.\-]+(?:, )?)+)", self.rest):
                found += re.findall(r"%([\w.\-]+)", names)
        return found


_LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')

_OWN_COUNT = re.compile(r'serialized_metadata = "\{\\22bytes\\22: \\22(\d+)')
"""What a kernel of our own says of the bytes that the programs of its grid read and write."""

Computations = dict[str, dict[str, _Instruction]]


def _computations(text: str) -> Computations:
    """All computations of a program by name; that where it starts is called ENTRY."""
    found: Computations = {}
    own: dict[str, _Instruction] = {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            own = found.setdefault("ENTRY" if head[1] else head[2], {})
        elif part := _LINE.match(line):
            given, _, rest = part[5].partition(")")
            operands = tuple(re.findall(r"%([\w.\-]+)", given))
            own[part[2]] = _Instruction(part[2], _bytes(part[3]), part[4], operands, rest)
    return found


def _bytes(shape: str) -> int:
    return sum(
        _BYTES.get(kind, 0) * math.prod(int(n) for n in sizes.split(",") if n) for kind, sizes in _ARRAY.findall(shape)
    )


def _cost(computations: Computations, name: str) -> tuple[int, int]:
    """Kernels that a computation launches, and the bytes they read and write."""
    kernels, traffic = 0, 0
    for one in computations[name].values():
        times, inner = 1, one.called("to_apply") if one.operation == "call" else []
        if one.operation == "while":
            trips = _TRIPS.search(one.rest)
            times, inner = int(trips[1]) if trips else 1, one.called("body", "condition")
        elif one.operation == "async-start":
            inner = one.called("calls")
        costs = [_cost(computations, called) for called in inner]
        if one.operation == "conditional":
            branches = one.called("branch_computations", "true_computation", "false_computation")
            costs = [max(_cost(computations, branch) for branch in branches)]
        kernels += times * sum(cost[0] for cost in costs)
        traffic += times * sum(cost[1] for cost in costs)
        if one.operation not in _NO_KERNEL and not one.operation.endswith("-done"):
            kernels += 1
            traffic += _traffic(computations, name, one)
    return kernels, traffic


def _traffic(computations: Computations, name: str, one: _Instruction) -> int:
    """Bytes that a kernel reads and writes."""
    if own := _OWN_COUNT.search(one.rest):
        return int(own[1])
    fused = one.called("calls")
    if not fused:
        return one.bytes + sum(computations[name][operand].bytes for operand in one.operands)
    inside = computations[fused[0]]
    read = sum(_read_bytes(inside, own) for own in inside.values() if own.operation == "parameter")
    return read + _written_bytes(inside, one)


def _read_bytes(inside: dict[str, _Instruction], parameter: _Instruction) -> int:
    """Bytes that are read of an operand: of one from which rows are taken alone, these."""
    names, rows = [parameter.name], 0
    while names:
        name = names.pop()
        for user in (i for i in inside.values() if name in i.operands):
            if user.operation == "bitcast":
                names.append(user.name)
            elif user.operation in ("gather", "dynamic-slice", "slice") and user.operands[0] == name:
                rows += user.bytes
            elif user.operation != "dynamic-update-slice" or user.operands[0] != name:
                return parameter.bytes
    return min(rows, parameter.bytes)


def _written_bytes(inside: dict[str, _Instruction], one: _Instruction) -> int:
    """Bytes of the result; of an array that is changed in place, what is changed."""
    updates = [i for i in inside.values() if i.operation == "dynamic-update-slice"]
    kept = sum(i.bytes - inside[i.operands[1]].bytes for i in updates)
    return max(one.bytes - kept, 0)


Case = Callable[[Any, Any], Compiled]


def forces(device: Any, potential: Any, params: Any, repeat: int) -> Compiled:
    """Energy, forces and stress of silicon, 8 atoms repeated so many times along each direction."""
    return compile_for(device, apply, potential, params, _graph(potential, repeat))


def dynamics(device: Any, potential: Any, params: Any, ensemble: str, n_replicas: int = 1, steps: int = 10) -> Compiled:
    """A step of molecular dynamics of 64 atoms of silicon."""
    system = _silicon(2)
    spec = md.VerletSpec.for_systems([system], potential.cutoff)
    rule = md.make_ensemble(ensemble, timestep_fs=1.0, temperature_K=300.0)  # pyright: ignore[reportArgumentType]
    begin = functools.partial(md.init, mlipjax.Model(potential, params), spec, md.Start(system), rule)
    state = jax.eval_shape(functools.partial(begin, n_replicas=n_replicas), jax.random.key(0))
    limits = md.Limits(temperature_K=1e4, contact_ratio=0.5)
    run = jax.jit(md.chunk(potential, spec, steps))
    return compile_for(device, run, params, state, _arrays(rule), _arrays(limits), steps=steps)


def training(device: Any, potential: Any, params: Any, n_frames: int = 4) -> Compiled:
    """An optimiser step on frames of 64 atoms of silicon."""
    system = _silicon(2)
    labels = mlipjax.Labels.create(system.n_atoms, 0.0, np.zeros((system.n_atoms, 3)), np.zeros((3, 3)))
    batch = make_batch(potential, [system] * n_frames, [labels] * n_frames)
    strategy = make_strategy("naive", params)
    optimizer = Optimizer(strategy.optimizer_config(100))
    state = jax.eval_shape(lambda: TrainState.create(params, optimizer, jax.random.key(0)))
    run = jax.jit(train_step(potential, optimizer, huber_loss()))
    return compile_for(device, run, state, batch, _arrays(strategy.hyper(LossWeights())))


PROGRAMS: dict[str, Callable[[Any, Any, Any], Compiled]] = {
    "force call, 64 atoms": functools.partial(forces, repeat=2),
    "force call, 1000 atoms": functools.partial(forces, repeat=5),
    "force call, 8000 atoms": functools.partial(forces, repeat=10),
    "force call, 97 336 atoms": functools.partial(forces, repeat=23),
    "NVE step, 64 atoms": functools.partial(dynamics, ensemble="nve"),
    "Langevin step, 64 atoms": functools.partial(dynamics, ensemble="nvt"),
    "NPT step, 64 atoms": functools.partial(dynamics, ensemble="npt"),
    "Langevin step, 8 x 64 atoms": functools.partial(dynamics, ensemble="nvt", n_replicas=8),
    "training step, 1 x 64 atoms": functools.partial(training, n_frames=1),
    "training step, 4 x 64 atoms": functools.partial(training, n_frames=4),
}


def _silicon(repeat: int) -> Any:
    atoms = bulk("Si", cubic=True).repeat(repeat)
    atoms.rattle(0.05, seed=0)
    return mlipjax.System.from_ase(atoms)


def _graph(potential: Any, repeat: int) -> Any:
    """A graph of the right shapes; only of a small one are the neighbours found."""
    small = batch_graphs([_silicon(min(repeat, 2))], potential.cutoff)
    n_small, n_atoms = small.atomic_numbers.shape[0], 8 * repeat**3

    def grown(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        shape = (n_atoms, *leaf.shape[1:]) if leaf.shape and leaf.shape[0] == n_small else leaf.shape
        return jax.ShapeDtypeStruct(shape, np.float32 if leaf.dtype == np.float64 else leaf.dtype)

    return jax.tree.map(grown, small)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def main() -> None:
    """Compile programs (by default all) with a model (by default the embedded one), and print a row for each."""
    device = gpu_device()
    model = sys.argv[1] if len(sys.argv) > 1 else "universal"
    name, _, backend = model.partition(":")
    potential, params = mlipjax.load(name)
    potential = potential.replace(backend=backend or "dense")
    params = _arrays(params)
    print(f"| {model}, float32, {device.device_kind} | kernels | temporaries MB | traffic MB | floor ms | faults |")
    print("|---|---|---|---|---|---|")
    for name in sys.argv[2:] or PROGRAMS:
        found = PROGRAMS[name](device, potential, params)
        sizes = f"{found.temporaries / 1e6:.1f} | {found.traffic / 1e6:.1f} | {1e3 * found.floor:.2f}"
        print(f"| {name} | {found.kernels} | {sizes} | {' '.join(found.faults) or '-'} |", flush=True)


if __name__ == "__main__":
    main()
