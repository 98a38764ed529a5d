"""Examination of labels, structures and splits before a model is trained on them; nothing is changed."""

from mlipjax.doctor.compared import Compared
from mlipjax.doctor.energies import find_outliers
from mlipjax.doctor.energy_zero import check_estimate, check_isolated
from mlipjax.doctor.examine import (
    Examination,
    check_data,
    check_predictions,
    check_set,
    check_zero_shot,
    compare,
    examine,
    suspect_labels,
)
from mlipjax.doctor.findings import Finding, demote, locate, refuse_fatal, sort_findings
from mlipjax.doctor.splits import check_validation
from mlipjax.doctor.structures import check_structures

__all__ = [
    "Compared",
    "Examination",
    "Finding",
    "check_data",
    "check_estimate",
    "check_isolated",
    "check_predictions",
    "check_set",
    "check_structures",
    "check_validation",
    "check_zero_shot",
    "compare",
    "demote",
    "examine",
    "find_outliers",
    "locate",
    "refuse_fatal",
    "sort_findings",
    "suspect_labels",
]
