"""Settings of a fine-tune, or a distillation, as typed records: options of commands, and arguments of Python calls."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from mlipjax.defaults import Precision

if TYPE_CHECKING:
    from mlipjax.losses import Loss, LossWeights, Penalty

STEP_0_LIMIT = 0.5
"""Largest energy error before training, eV/atom: more means that the isolated-atom energies do not fit the labels
(arXiv 2606.12704)."""

_HVP_WEIGHTS = {"huber": 0.1, "mse": 0.01}
"""Errors of Hessian products in eV/Å^2 are some ten times those of forces in eV/Å."""
_HVP_DELTA = 0.1
"""eV/Å^2, the size of error that counts as small."""

_WEIGHTS = {
    # absolute errors in the ratio the published Nequix weights were trained with
    "huber": (1.0, 1.0, 0.25),
    # squared errors: energies per atom are some ten times smaller than forces, stresses another ten
    "mse": (100.0, 1.0, 100.0),
}


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings of any fine-tune.

    Attributes:
        strategy: what is trained and how fast; "ft", "lp" and "mft" (and "scratch") are for properties.
        epochs: passes over the training set.
        batch_size: structures per optimiser step; memory does not depend on it. By default one if they have more
            than 100 atoms, of smaller ones as many as have 200 atoms together, at most 4.
        learning_rate: peak learning rate; by default the strategy's.
        layer_decay: for "llrd", or added to replay, l2sp, ewc: ratio of the learning rates of neighbouring layers.
        layer_multipliers: for "llrd", or likewise: one factor per layer from the bottom instead.
        replay: structures to replay: with true labels of the model's own level of theory for "replay"; for
            "pseudo-replay" any structures, by default generated ones.
        replay_size: number of generated structures, for replay or as anchor.
        loss: "huber" (absolute error beyond a small threshold) or "mse".
        energy_weight: factor of the energy term (eV/atom); by default the loss's.
        forces_weight: factor of the force term (eV/Å); likewise.
        stress_weight: factor of the stress term (eV/Å^3); likewise.
        clip: largest gradient norm; by default the strategy's.
        ema_decay: decay of the parameter average; by default the strategy's.
        valid_fraction: part of the training data held out if no validation data are given, by whole trajectories; with
            0 nothing is, and the last epoch is kept.
        snapshots: models to keep along the run in ``out``/snapshots, besides the one before the first step: of the
            averaged parameters, evenly over all steps.
        seed: of the split, the order of structures and fresh parameters.
        dtype: precision of training.
        precision: of the network's float32 products on GPUs and TPUs: in full, or faster with "high" (forces err by
            1 meV/Å rms on GPUs, 0.01 on TPUs) or "default" (1 and 6 meV/Å). On CPUs all three are the same.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
    """

    strategy: Literal[
        "naive", "freeze", "llrd", "lora", "replay", "pseudo-replay", "l2sp", "ewc", "scratch", "ft", "lp", "mft"
    ] = "naive"
    epochs: int = 50
    batch_size: int | None = None
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=("--lr",))] = None
    layer_decay: float | None = None
    layer_multipliers: tuple[float, ...] | None = None
    replay: str | None = None
    replay_size: int = 48
    loss: Literal["huber", "mse"] = "huber"
    energy_weight: float | None = None
    forces_weight: float | None = None
    stress_weight: float | None = None
    clip: float | None = None
    ema_decay: float | None = None
    valid_fraction: float = 0.1
    snapshots: int = 0
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precision = "highest"
    max_slots: int | None = None


@dataclasses.dataclass(frozen=True)
class ForceFieldSettings:
    """Settings of a fine-tune on energies and forces alone: a property cannot honour it.

    Attributes:
        auto: choose the strategy by the size of the training set; what was chosen, and why, is shown.
        e0s: isolated-atom energies: a JSON file, "estimate" (least squares against the model), "isolated" (of the
            isolated atoms in the training set) or "model" (as is).
        optimizer: "muon" (steps of kernels are made orthogonal: fewest gradients) or "adam"; by default the strategy's.
        freeze_layers: for "freeze", or added to replay, l2sp, ewc: number of layers held fixed, from the bottom.
        l2sp: strength of a pull to the pretrained weights; adds it to any strategy but lora and scratch.
        ewc: the same, weighted by the Fisher information.
        lora_rank: for "lora": rank of the adapters.
        lora_radial: for "lora": adapt radial kernels too.
        replay_weight: factor of the replay loss; by default the strategy's.
        hvp_weight: factor of the term of Hessian products (eV/Å^2); by default the loss's.
        anchor: structures on which the retained error is measured after every epoch: "generated" (from the training
            set's elements, labelled by the model itself), "none", or a file with labels of the model's own level. With
            replay, "generated" means a held-out part of the replay structures.
        anchor_weight: factor of the anchor's loss in the choice of the epoch; by default the strategy's.
        patience: stop after this many epochs without improvement; by default never, because the schedule ends
            with its smallest steps.
        allow_e0_mismatch: train although the error before training says that the E0s are wrong.
        ignore: checks of the doctor whose fatal findings become warnings, by name.
    """

    auto: bool = False
    e0s: str = "model"
    optimizer: Literal["muon", "adam"] | None = None
    freeze_layers: int | None = None
    l2sp: float | None = None
    ewc: float | None = None
    lora_rank: int | None = None
    lora_radial: bool = False
    replay_weight: float | None = None
    hvp_weight: float | None = None
    anchor: str = "generated"
    anchor_weight: float | None = None
    patience: int | None = None
    allow_e0_mismatch: bool = False
    ignore: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(ForceFieldSettings, RunSettings):
    """Everything that decides the numbers of a fine-tune besides model and data, and what is kept along it.

    A property has ``PropertySettings`` beside those of ``RunSettings``.
    """

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(f"epochs and batch_size must be at least 1, found {self.epochs} and {self.batch_size}.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, found {self.patience}.")
        if self.snapshots < 0:
            raise ValueError(f"snapshots must not be negative, found {self.snapshots}.")
        if self.learning_rate is not None and not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate must be positive, found {self.learning_rate}.")
        if not 0.0 <= self.valid_fraction < 1.0:
            raise ValueError(f"valid_fraction={self.valid_fraction}: give a fraction from 0 to below 1.")
        if self.loss not in _WEIGHTS:
            raise ValueError(f"unknown loss {self.loss!r}; choose one of {', '.join(_WEIGHTS)}.")
        weights = (self.energy_weight, self.forces_weight, self.stress_weight, self.hvp_weight)
        if not all(weight is None or weight >= 0.0 for weight in weights):
            raise ValueError(f"loss weights must not be negative, found {weights}.")

        if self.auto and self.strategy != "naive":
            both = f"the data choose the strategy (auto), and {self.strategy!r} is given too (strategy); take one."
            raise ValueError(both)
        if self.replay_size < 2:
            raise ValueError(f"replay_size must be at least 2, found {self.replay_size}.")
        if self.anchor_weight is not None and not self.anchor_weight >= 0.0:
            raise ValueError(f"anchor_weight must not be negative, found {self.anchor_weight}.")

    def strategy_options(self) -> dict[str, Any]:
        """Return the options of ``optim.make_strategy``."""
        names = ("freeze_layers", "layer_decay", "layer_multipliers", "l2sp", "ewc", "lora_rank", "lora_radial")
        return {name: getattr(self, name) for name in (*names, "replay_weight", "optimizer")}

    def batching(self) -> dict[str, Any]:
        """Precision and size of batches, as ``LabelledBatches.create`` takes them."""
        return {"dtype": self.dtype, "max_slots": self.max_slots}

    def make_loss(self) -> Loss:
        """Return the loss."""
        from mlipjax.losses import huber_loss, mse_loss

        return {"huber": huber_loss, "mse": mse_loss}[self.loss]()

    def loss_weights(self) -> LossWeights:
        """Return the factors of its terms."""
        from mlipjax.losses import LossWeights

        given = (self.energy_weight, self.forces_weight, self.stress_weight)
        default = _WEIGHTS[self.loss]
        return LossWeights(*(own if one is None else one for one, own in zip(given, default, strict=True)))

    def hvp_term(self) -> tuple[Penalty, float]:
        """Return the penalty of Hessian products and its factor."""
        from mlipjax.losses import Huber, Square

        penalty = {"huber": Huber(_HVP_DELTA), "mse": Square()}[self.loss]
        return penalty, _HVP_WEIGHTS[self.loss] if self.hvp_weight is None else self.hvp_weight


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
