"""What people do with a model, one call each: the command line's verbs, in Python, on ``ase.Atoms`` or files."""

from mlipjax.verbs.inputs import ForeignModel, ModelLike, NativeModel, open_model
from mlipjax.verbs.periodic import periodic
from mlipjax.verbs.predict import predict, predict_each
from mlipjax.verbs.relax import relax
from mlipjax.verbs.relaxation import Relaxation

__all__ = [
    "ForeignModel",
    "ModelLike",
    "NativeModel",
    "Relaxation",
    "open_model",
    "periodic",
    "predict",
    "predict_each",
    "relax",
]
