"""Questions of ``experiments.reactive`` to a model, native or foreign: energies, and its own barrier of an event."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.reactive.structures import Event
from mlipjax.data import Dataset
from mlipjax.files import plain
from mlipjax.models import load
from mlipjax.models.foreign import is_foreign, refusal
from mlipjax.potential import Model as Pair
from mlipjax.probes.evaluator import AseEvaluator, Evaluation, NativeEvaluator, load_evaluator
from mlipjax.probes.neb import neb
from mlipjax.relaxation import ProbeDiverged
from mlipjax.system import System
from mlipjax.train import error_report
from mlipjax.train.batches import StructurePrediction


@dataclasses.dataclass(frozen=True)
class Model:
    """A model under test.

    Attributes:
        name: as in tables.
        evaluate: structures in, energies out. The potential of a native model is that of the universal one it started
            from, so that fine-tuned parameters run in programs that are compiled already.
    """

    name: str
    evaluate: NativeEvaluator | AseEvaluator

    @classmethod
    @functools.cache
    def load(cls, name: str) -> Model:
        """Load a native model, or make a foreign calculator; once in each process, and with it its programs."""
        if is_foreign(name):
            return cls(name, load_evaluator(name))
        return cls.native(name, load(name))

    @classmethod
    def native(cls, name: str, model: Pair) -> Model:
        """A model of this package, in single precision."""
        return cls(name, NativeEvaluator(model.cast("float32"), dtype="float32"))

    @property
    def own(self) -> Pair:
        """Potential and parameters.

        Raises:
            ValueError: for a foreign calculator, which has none: it can be neither fine-tuned nor simulated here.
        """
        if isinstance(self.evaluate, AseEvaluator):
            raise refusal(self.name)
        return self.evaluate.model


Results = dict[str, Any]


def or_why_not(*kinds: type[Exception]) -> Callable[[Callable[..., Results]], Callable[..., Results]]:
    """Decorator: a model that breaks down in one of these ways is a result (``failed``), not the end of the run."""

    def decorated(make: Callable[..., Results]) -> Callable[..., Results]:
        @functools.wraps(make)
        def made(*arguments: Any, **options: Any) -> Results:
            try:
                return make(*arguments, **options)
            except kinds as error:
                return {"failed": " ".join(str(error).split())}

        return made

    return decorated


def errors(model: Model, data: Dataset, shift: float) -> dict[str, Any]:
    """Error report with ``shift`` (eV per structure, see ``energy_shift``) added to the energies."""
    results = model.evaluate(data.systems)
    return error_report(data, [_prediction(result, shift) for result in results])


def energy_shift(model: Model, data: Dataset) -> float:
    """Mean of label minus prediction: of one composition, least squares of all E0s are one number."""
    results = model.evaluate(data.systems)
    return float(np.mean([float(y.energy) - r.energy for y, r in zip(data.labels, results, strict=True)]))


def _prediction(result: Evaluation, shift: float) -> StructurePrediction:
    stress = np.zeros((3, 3)) if result.stress is None else result.stress
    return StructurePrediction(result.energy + shift, result.forces, stress)


@or_why_not(ProbeDiverged, RuntimeError, ValueError)
def barrier(
    model: Model, event: Event, path: Sequence[System] | None, *, n_images: int, fmax: float, max_steps: int
) -> dict[str, Any]:
    """Fixed-path and self-consistent barrier of an event.

    Args:
        model: native (one batched band) or foreign (ASE's band).
        event: both ends, where there is no path yet.
        path: images of the reference, on which the fixed-path barrier is taken and from which the band starts.
        n_images: of a new band.
        fmax: eV/Å.
        max_steps: at most.
    """
    fixed = None
    if path is not None:
        levels = np.array([result.energy for result in model.evaluate(path)])
        fixed = {"barrier_eV": float(levels.max() - levels[0]), "profile_eV": (levels - levels[0]).tolist()}
    images = [event.start, event.end] if path is None else list(path)
    if not is_foreign(model.name):
        found = neb(model.own, images, n_images=n_images, fmax=fmax, max_steps=max_steps, free=event.free)
        own: dict[str, Any] = {
            "barrier_eV": found.barrier_eV,
            "reaction_eV": found.reaction_energy_eV,
            "converged": found.converged,
            "climbed": found.climbed,
            "left_eV_per_A": float(found.image_fmax_eV_per_A.max()),
            "steps": found.steps,
            "profile_eV": (found.energies_eV - found.energies_eV[0]).tolist(),
            "distance_A": found.distance_A.tolist(),
            "positions": found.positions.tolist(),
            "verdict": found.verdict,
        }
    else:
        own = _ase_band(model.evaluate, images, event, n_images, fmax, max_steps)
    return plain({"fixed": fixed, "own": own})


def _ase_band(
    evaluate: Any, images: Sequence[System], event: Event, n_images: int, fmax: float, max_steps: int
) -> dict[str, Any]:
    """The same by ASE, for a foreign calculator: ends relaxed, then a climbing band, images one after the other."""
    from ase.constraints import FixAtoms
    from ase.mep import NEB
    from ase.optimize import FIRE

    frames = [image.to_ase() for image in images]
    if len(frames) == 2:
        frames = [frames[0].copy() for _ in range(n_images - 1)] + [frames[-1]]
    for atoms in frames:
        atoms.set_constraint(FixAtoms(np.flatnonzero(~event.free)))
        atoms.calc = evaluate.calculator
    for end in (frames[0], frames[-1]):
        FIRE(end, logfile=None).run(fmax=fmax, steps=max_steps)  # pyright: ignore[reportArgumentType]
    band = NEB(frames, climb=True, allow_shared_calculator=True, method="improvedtangent")
    if len(images) == 2:
        band.interpolate("idpp", mic=True)
    optimizer = FIRE(band, logfile=None)  # pyright: ignore[reportArgumentType]
    optimizer.run(fmax=fmax, steps=max_steps)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    left = float(np.linalg.norm(band.get_forces(), axis=1).max())
    steps = np.array([np.linalg.norm(b.positions - a.positions) for a, b in itertools.pairwise(frames)])
    return {
        "barrier_eV": float(energies.max() - energies[0]),
        "reaction_eV": float(energies[-1] - energies[0]),
        "converged": left < fmax,
        "climbed": 0 < int(energies.argmax()) < len(energies) - 1,
        "left_eV_per_A": left,
        "steps": int(optimizer.nsteps),
        "profile_eV": (energies - energies[0]).tolist(),
        "distance_A": np.concatenate([[0.0], np.cumsum(steps)]).tolist(),
        "positions": [atoms.positions.tolist() for atoms in frames],
        "verdict": f"ASE band, barrier {energies.max() - energies[0]:.3f} eV, {left:.3f} eV/Å left",
    }


def path_of(event: Event, result: dict[str, Any] | None) -> list[System] | None:
    """Images of a finished band as structures, if there is one."""
    if result is None or "failed" in result:
        return None
    return [dataclasses.replace(event.start, positions=np.array(p)) for p in result["own"]["positions"]]
