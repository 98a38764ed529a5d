"""Figures (arrays in, matplotlib ``Figure`` out) and one self-contained HTML report."""

from mlipjax.report.curves import interactive_curves
from mlipjax.report.errors import ErrorCurve, error_against_labels, parity, training_history
from mlipjax.report.html import Illustration, Interactive, Table, write_report
from mlipjax.report.structures import pictures, structure_viewer
from mlipjax.report.style import arm_styles, figure_png, save_figure
from mlipjax.report.trajectories import Trace, pca_map, q_residual, traces

__all__ = [
    "ErrorCurve",
    "Illustration",
    "Interactive",
    "Table",
    "Trace",
    "arm_styles",
    "error_against_labels",
    "figure_png",
    "interactive_curves",
    "parity",
    "pca_map",
    "pictures",
    "q_residual",
    "save_figure",
    "structure_viewer",
    "traces",
    "training_history",
    "write_report",
]
