"""Uses of a model, one call each: the command line's verbs, in Python, on ``ase.Atoms`` or files.

Every verb is ``verb(model, structures, *, options)`` (the model of ``distill`` is its teacher), with the options, words
and defaults of the command of its name.
"""

from mlipjax.verbs.calibrate import calibrate
from mlipjax.verbs.distill import distill
from mlipjax.verbs.evaluate import evaluate
from mlipjax.verbs.finetune import finetune
from mlipjax.verbs.inputs import ModelLike, Structures
from mlipjax.verbs.monitor import monitor
from mlipjax.verbs.neb import neb
from mlipjax.verbs.periodic import periodic
from mlipjax.verbs.predict import predict, predict_each
from mlipjax.verbs.read import read
from mlipjax.verbs.relax import Relaxation, relax
from mlipjax.verbs.simulate import simulate
from mlipjax.verbs.simulation import Simulation

__all__ = [
    "ModelLike",
    "Relaxation",
    "Simulation",
    "Structures",
    "calibrate",
    "distill",
    "evaluate",
    "finetune",
    "monitor",
    "neb",
    "periodic",
    "predict",
    "predict_each",
    "read",
    "relax",
    "simulate",
]
