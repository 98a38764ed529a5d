"""Charts that say when a model leaves the region it was trained on."""

from mlipjax.defaults import COMPONENTS
from mlipjax.monitoring.charts import (
    FRAME_INDICES,
    MonitorState,
    atom_indices,
    fit_charts,
    q_residual,
)
from mlipjax.monitoring.correlation import by_run, effective_size, statistical_inefficiency
from mlipjax.monitoring.cross import cross_fit_monitor
from mlipjax.monitoring.features import FrameFeatures, Layers, feature_columns, frame_features, graph_features
from mlipjax.monitoring.fit import FrameReadings, Monitor, fit_monitor, read_frames, split_reference
from mlipjax.monitoring.limits import (
    box_limit,
    box_q_limit,
    conformal_limit,
    jackson_mudholkar,
    t2_limit_beta,
    t2_limit_f,
    thinned_limit,
)
from mlipjax.monitoring.readings import contributions, read
from mlipjax.monitoring.storage import load_monitor, save_monitor
from mlipjax.monitoring.watch import MonitorAlarm, Watch, read_graph
from mlipjax.tree import params_fingerprint

__all__ = [
    "COMPONENTS",
    "FRAME_INDICES",
    "FrameFeatures",
    "FrameReadings",
    "Layers",
    "Monitor",
    "MonitorAlarm",
    "MonitorState",
    "Watch",
    "atom_indices",
    "box_limit",
    "box_q_limit",
    "by_run",
    "conformal_limit",
    "contributions",
    "cross_fit_monitor",
    "effective_size",
    "feature_columns",
    "fit_charts",
    "fit_monitor",
    "frame_features",
    "graph_features",
    "jackson_mudholkar",
    "load_monitor",
    "params_fingerprint",
    "q_residual",
    "read",
    "read_frames",
    "read_graph",
    "save_monitor",
    "split_reference",
    "statistical_inefficiency",
    "t2_limit_beta",
    "t2_limit_f",
    "thinned_limit",
]
