"""Training: states, steps, batches, evaluation, isolated-atom energies and checkpoints."""

from mlipjax.train.batches import LabelledBatches, StructurePrediction, make_batch, predict, predict_property
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.train.evaluate import evaluate
from mlipjax.train.fisher import fisher_diagonal
from mlipjax.train.judge import LossJudge, NonFiniteError, TaskJudge, validation_loss
from mlipjax.train.loop import Listener, TrainConfig, Training, train
from mlipjax.train.metrics import error_report, error_summary, property_report
from mlipjax.train.objectives import Denoising, ForceField, PropertyValue
from mlipjax.train.recorder import Snapshots, read_metrics
from mlipjax.train.references import E0Estimate, estimate_e0s, read_e0s, set_e0s, settle_e0s, shift_e0s
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import (
    StepInfo,
    accumulate,
    apply_gradient,
    fit,
    loss_gradient,
    train_step,
)
from mlipjax.train.tasks import Mixture, Prefactors, Task, mixture_step

__all__ = [
    "Batch",
    "Checkpoints",
    "Denoising",
    "E0Estimate",
    "ForceField",
    "LabelledBatches",
    "Listener",
    "LossJudge",
    "Mixture",
    "NonFiniteError",
    "Prefactors",
    "PropertyValue",
    "Snapshots",
    "StepInfo",
    "StructurePrediction",
    "Task",
    "TaskJudge",
    "TrainConfig",
    "TrainState",
    "Training",
    "accumulate",
    "apply_gradient",
    "error_report",
    "error_summary",
    "estimate_e0s",
    "evaluate",
    "fisher_diagonal",
    "fit",
    "loss_gradient",
    "make_batch",
    "mixture_step",
    "predict",
    "predict_property",
    "property_report",
    "read_e0s",
    "read_metrics",
    "set_e0s",
    "settle_e0s",
    "shift_e0s",
    "train",
    "train_step",
    "validation_loss",
]
