"""A run of molecular dynamics, without where it stands."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mlipjax.devices import WHOLE, device_mesh, put
from mlipjax.graph import Near, VerletSpec
from mlipjax.md.ensembles import Ensemble
from mlipjax.md.frames import Columns, Way
from mlipjax.md.gate import Limits
from mlipjax.md.restart import fingerprint, numbers
from mlipjax.md.start import Start
from mlipjax.md.state import SimState
from mlipjax.potential import Model
from mlipjax.typing import Key, Params


@dataclasses.dataclass(frozen=True)
class Job:
    """Constants of a run: the arguments of ``md.run``.

    Attributes:
        near: the structure of the start, with its atoms brought near the origin.
        spec, chunk_steps: to begin with.
    """

    model: Model
    start: Start
    near: Near
    ensemble: Ensemble
    limits: Limits
    key: Key
    n_replicas: int
    head: int
    spec: VerletSpec
    chunk_steps: int
    n_steps: int
    frame_every: int
    trajectory: Path | None
    checkpoint: Path | None
    columns: Columns | None = None

    @functools.cached_property
    def mesh(self) -> Mesh | None:
        """Devices that the replicas are divided over; no number of a run depends on them, but for rounding."""
        return device_mesh(self.n_replicas)

    @functools.cached_property
    def params(self) -> Params:
        """The model's parameters on every device of the mesh."""
        return put(self.model.params, self.mesh, WHOLE)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree in: everything its numbers depend on."""
        system, freedom, momenta = self.start.system, self.start.freedom, self.start.momenta
        return {
            "structure": fingerprint(system),
            "pbc": list(system.pbc),
            "parameters": fingerprint(self.model.params),
            "key": fingerprint(self.key),
            "ensemble": type(self.ensemble).__name__,
            **numbers(self.ensemble),
            "limits": numbers(self.limits),
            "replicas": self.n_replicas,
            "exact_temperature": self.start.exact_temperature,
            "head": self.head,
            "skin": self.spec.skin,
            "chunk_steps": self.chunk_steps,
            "frame_every": self.frame_every,
            "momenta": None if momenta is None else fingerprint(momenta),
            "free": None if freedom is None else fingerprint(freedom.free),
            "dispersion": None if (more := self.model.potential.dispersion) is None else more.name,
        }

    def way(self, state: SimState) -> Way:
        """Return how the atoms came to be where they are."""
        return Way(np.asarray(state.images), self.near, self.start.freedom)
