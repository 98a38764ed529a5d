"""Settings of a distillation besides those of its training."""

from __future__ import annotations

import dataclasses
import math

from mlipjax.settings.finetune import FinetuneSettings


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """Structures that the teacher labels, and how the student is tested.

    Attributes:
        elements: symbols of the elements of generated structures.
        generated: number of generated structures; four for each element hold every element as a crystal and in a pair,
            and by default there are twelve, for each with several others and at several distances.
        temperatures: K, of molecular dynamics that starts from the structures given; without any there is none. By
            default that of use and one and a half times that, so that the student has seen what is rare in use.
        trajectories: runs at each temperature, from structures in turn; many short ones differ more than few long ones.
        frames: structures taken from each of them.
        frame_spacing: fs between these; two periods of an O-H bond and one of most others, so that no two resemble
            each other.
        driver: model that drives the molecular dynamics, by name or path; by default the teacher. A cheaper one,
            such as a first student, visits many more structures in the same time.
        rattles: strained and rattled copies of each structure given; one label each teaches stiffness and pressure.
        rattle: Å, largest standard deviation of their displacements: what a stiff bond does at room temperature, and
            half of what an atom of a crystal does.
        strain: largest strain of their cells, if these are periodic along all axes; what thermal expansion and a few
            GPa do.
        products: training structures of which the teacher also gives the product of its Hessian with a random vector,
            for phonons; each costs about three labels.
        test_fraction: part of the structures, by trajectory, that training never sees.
        test_ps: ps of molecular dynamics of the student at 1, 1.5 and 2 times the first temperature.
    """

    elements: tuple[str, ...] = ()
    generated: int | None = None
    temperatures: tuple[float, ...] = (300.0, 450.0)
    trajectories: int = 8
    frames: int = 5
    frame_spacing: float = 20.0
    driver: str | None = None
    rattles: int = 4
    rattle: float = 0.05
    strain: float = 0.03
    products: int = 0
    test_fraction: float = 0.1
    test_ps: float = 2.0

    def __post_init__(self) -> None:
        counts = (self.trajectories, self.frames, self.rattles, self.products)
        if min(counts[:2]) < 1 or min(counts) < 0:
            raise ValueError(f"trajectories, frames, rattles, products must be 1, 1, 0, 0 at least, found {counts}.")
        if not all(0.0 < kelvin < math.inf for kelvin in self.temperatures):
            raise ValueError(f"temperatures must be positive (K), found {self.temperatures}.")
        if not (self.frame_spacing > 0.0 and self.test_ps > 0.0):
            raise ValueError(f"frame_spacing and test_ps must be positive, found {self.frame_spacing}, {self.test_ps}.")
        if not (self.rattle >= 0.0 and 0.0 <= self.strain < 0.5):
            raise ValueError(f"rattle must be 0 Å or more and strain below 0.5, found {self.rattle}, {self.strain}.")
        if not 0.0 < self.test_fraction < 1.0:
            raise ValueError(f"test_fraction={self.test_fraction}: give a fraction between 0 and 1.")


DISTILLATION = FinetuneSettings(
    strategy="scratch", e0s="estimate", anchor="none", allow_e0_mismatch=True, ignore=("agreement", "sign")
)
"""Training of a student unless told otherwise. A new model has nothing to be anchored to; its energies are counted from
the teacher's isolated atoms, and least squares take off what the teacher's network adds to these. Signs and units of
labels that a teacher gave are right, so one that starts from the parameters of another model may disagree with them."""
