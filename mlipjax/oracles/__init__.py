"""Sources of labels, and the store that keeps them."""

from mlipjax.data.labels import BadLabelError, check_labels, make_labels
from mlipjax.oracles.analytic import LennardJones, StillingerWeber
from mlipjax.oracles.ase_calculator import AseOracle
from mlipjax.oracles.cp2k import Cp2k
from mlipjax.oracles.executors import Workers, make_executor
from mlipjax.oracles.labeller import Labeller
from mlipjax.oracles.protocol import Failure, JittableOracle, Oracle, check_cutoff, energy_offsets
from mlipjax.oracles.spec import make_oracle
from mlipjax.oracles.store import LabelStore, label_key
from mlipjax.oracles.teacher import Teacher, label_with
from mlipjax.oracles.workers import SerialExecutor, attempt, local_processes
from mlipjax.oracles.xtb import Xtb

__all__ = [
    "AseOracle",
    "BadLabelError",
    "Cp2k",
    "Failure",
    "JittableOracle",
    "LabelStore",
    "Labeller",
    "LennardJones",
    "Oracle",
    "SerialExecutor",
    "StillingerWeber",
    "Teacher",
    "Workers",
    "Xtb",
    "attempt",
    "check_cutoff",
    "check_labels",
    "energy_offsets",
    "label_key",
    "label_with",
    "local_processes",
    "make_executor",
    "make_labels",
    "make_oracle",
]
