"""Charts that say when a model leaves the region it was trained on."""

from mlipjax.monitor.charts import MonitorState, fit_charts, q_residual

__all__ = ["MonitorState", "fit_charts", "q_residual"]
