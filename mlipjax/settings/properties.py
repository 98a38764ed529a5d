"""Settings of a property fine-tune beyond those it shares with force-field fine-tunes (``FinetuneSettings``)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from mlipjax.settings.finetune import FinetuneSettings, ForceFieldSettings

if TYPE_CHECKING:
    from mlipjax.nn.readouts import PropertyHead
    from mlipjax.train.tasks import Prefactors

_PUBLISHED = (0.2, 100.0, 0.02), (20.0, 60.0, 1.0)
"""S3's factors of energies, forces and stresses, of squared errors, from the first learning rate to a vanished one.
DeePMD-kit divides the squared energy and virial by the number of atoms once, this code twice, and the virial is the
stress times the volume."""


@dataclasses.dataclass(frozen=True)
class PropertySettings:
    """Settings of a property, beside those of a fine-tune.

    ``batch_size`` and ``loss`` of the shared settings are those of the force-field task.

    Attributes:
        property_kind: "intensive" (network on the mean features of a structure) or "extensive" (sum over atoms).
        property_hidden: sizes of the hidden layers of the head.
        property_layers: features the head reads: of the "last" layer or of "all".
        property_unit: of the values, for reports.
        property_batch_size: structures per step of the property task.
        property_delta: residual, in standard deviations of the training values, below which the loss is quadratic.
        steps: optimiser steps, whichever task they are for; by default ``epochs`` passes over the property's data.
        validate_every: steps between validations; by default a twentieth of all.
        published_decay: layer-wise learning rates by S3's table (.30, .40, .55, .625 of four blocks) at equal depths.
        mixture: for "mft": "draw" one task per step, or "sum" both in every step.
        force_field_share: for "mft": probability of the force field's turn, or its weight beside the property's 1 - x.
        prefactors: of energies, forces and stresses: "constant" or "published" (moving with the learning rate; needs
            the loss "mse").
        pseudo_labels: for "mft" with a replay file: take the frozen model's labels although the file has its own.
        denoise: Å; adds the task of taking noise of this size out of positions (self-supervised: needs no labels).
        denoise_share: its probability, or its weight in a sum, where all tasks together have 1.
        denoise_data: structures for it (any file ASE reads; labels are not looked at); by default the property's.
        denoise_batch_size: structures per step of it; by default that of the property.
    """

    property_kind: Literal["intensive", "extensive"] = "intensive"
    property_hidden: tuple[int, ...] = (64, 64)
    property_layers: Literal["last", "all"] = "last"
    property_unit: str = ""
    property_batch_size: int = 32
    property_delta: float = 0.1
    steps: int | None = None
    validate_every: int | None = None
    published_decay: bool = False
    mixture: Literal["draw", "sum"] = "draw"
    force_field_share: float = 0.5
    prefactors: Literal["constant", "published"] = "constant"
    pseudo_labels: bool = False
    denoise: float = 0.0
    denoise_share: float = 0.25
    denoise_data: str | None = None
    denoise_batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.force_field_share < 1.0 or not 0.0 < self.denoise_share < 1.0:
            raise ValueError(
                f"shares are probabilities in (0, 1), found {self.force_field_share} and {self.denoise_share}."
            )
        given = (self.property_batch_size, self.steps, self.validate_every, self.denoise_batch_size)
        if any(number is not None and number < 1 for number in given):
            raise ValueError(f"batch sizes, steps and validate_every must be positive, found {given}.")
        if not self.property_delta > 0.0 or self.denoise < 0.0:
            raise ValueError("delta must be positive, and the noise must not be negative.")

    def head(self, name: str, mean: float, std: float) -> PropertyHead:
        """Return the head of the property."""
        from mlipjax.nn.readouts import PropertyHead

        return PropertyHead(
            name, self.property_kind, self.property_hidden, self.property_layers, mean, std, self.property_unit
        )

    def force_field_prefactors(self, settings: FinetuneSettings) -> Prefactors:
        """Return the factors of energies, forces and stresses.

        Raises:
            ValueError: if published ones are combined with another loss or with given weights.
        """
        from mlipjax.losses import LossWeights
        from mlipjax.train.tasks import Prefactors

        if self.prefactors == "constant":
            return Prefactors.constant(settings.loss_weights())
        weights = (settings.energy_weight, settings.forces_weight, settings.stress_weight)
        if settings.loss != "mse" or any(weight is not None for weight in weights):
            raise ValueError(f"published prefactors are for the loss 'mse' and no others, found {settings.loss!r}.")
        return Prefactors(*(LossWeights(*weights) for weights in _PUBLISHED))


def check_settings(settings: FinetuneSettings, options: PropertySettings) -> None:
    """Refuse what a property fine-tune cannot honour.

    Raises:
        ValueError: for another strategy than the modes of S3, or an option that would be ignored.
    """
    from mlipjax.optim.modes import MODES

    if settings.strategy not in MODES:
        raise ValueError(f"a property is learned by {', '.join(MODES)}, not by strategy {settings.strategy!r}.")
    for field in dataclasses.fields(ForceFieldSettings):
        if (value := getattr(settings, field.name)) != field.default:
            raise ValueError(f"{field.name}={value!r} means nothing for a property; leave it out.")
    if settings.strategy != "mft" and settings.replay is not None:
        raise ValueError(f"strategy {settings.strategy!r} has no force-field task: replay is for mft.")
    if not options.denoise and (options.denoise_data or options.denoise_batch_size):
        raise ValueError("denoise_data and denoise_batch_size need the size of the noise: give denoise in Å.")
    if settings.strategy == "lp" and options.denoise:
        raise ValueError("lp trains no backbone, so denoising would teach nothing; choose another strategy.")
