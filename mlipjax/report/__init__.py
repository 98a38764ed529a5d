"""Figures (arrays in, matplotlib ``Figure`` out) and one self-contained HTML report."""

from mlipjax.report.errors import ErrorCurve, error_against_labels, parity, training_history
from mlipjax.report.html import Illustration, Table, write_report
from mlipjax.report.style import arm_styles, figure_png, save_figure
from mlipjax.report.trajectories import Trace, pca_map, q_residual, traces

__all__ = [
    "ErrorCurve",
    "Illustration",
    "Table",
    "Trace",
    "arm_styles",
    "error_against_labels",
    "figure_png",
    "parity",
    "pca_map",
    "q_residual",
    "save_figure",
    "traces",
    "training_history",
    "write_report",
]
