"""Curves that a reader can point at, by Bokeh, which brings its script along (1.3 MB; plotly's has 4.8 MB)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from mlipjax.files import digest
from mlipjax.report.html import Interactive
from mlipjax.report.style import arm_styles

_NAMES = re.compile(r'"(p\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')
"""Bokeh's names of the parts of a drawing."""


def interactive_curves(
    x: ArrayLike, panels: Mapping[str, Mapping[str, ArrayLike]], *, x_label: str, caption: str, title: str
) -> Interactive | None:
    """Curves above each other with one x axis: values under the pointer, zoom, curves that can be hidden.

    Args:
        x: (n,) of all curves.
        panels: by the label of their y axis, curves (n,) by name; drawn on a logarithmic axis where all are positive.
        x_label: with unit.
        caption: of the figure.
        title: of the figure.

    Returns:
        The figure; ``None`` where bokeh (the extra ``report``) is not installed: static figures say the same.
    """
    try:
        from bokeh.embed import json_item
        from bokeh.layouts import column
        from bokeh.plotting import figure
        from bokeh.resources import Resources
    except ImportError:
        return None
    drawn = []
    for y_label, curves in panels.items():
        positive = all(np.all(np.asarray(values, float) > 0.0) for values in curves.values())
        panel = figure(
            height=260,
            sizing_mode="stretch_width",
            x_axis_label=x_label,
            y_axis_label=y_label,
            y_axis_type="log" if positive else "linear",
            tools="pan,wheel_zoom,box_zoom,reset,save,hover",
            tooltips=[("", "$name"), (x_label, "@x"), (y_label, "@y{0.0000}")],
            output_backend="svg",
        )
        if drawn:
            panel.x_range = drawn[0].x_range
        panel.toolbar.logo = None  # pyright: ignore[reportAttributeAccessIssue]
        for name, style in arm_styles(curves).items():
            line = {"x": np.asarray(x, float), "y": np.asarray(curves[name], float), "name": name}
            panel.line(**line, legend_label=style.label, color=style.color, line_width=1.6)
            panel.scatter(**line, legend_label=style.label, color=style.color, size=5)
        panel.legend.click_policy = "hide"
        panel.legend.orientation = "horizontal"
        panel.add_layout(panel.legend[0], "above")  # where it hides no curve
        drawn.append(panel)
    text = _numbered(json.dumps(json_item(column(*drawn, sizing_mode="stretch_width"))))
    place = f"curves-{digest(text)[:8]}"
    body = f'<div id="{place}"></div><script>Bokeh.embed.embed_item({text}, "{place}");</script>'
    return Interactive(body, tuple(Resources(mode="inline", components=["bokeh"]).js_raw), caption, title)


def _numbered(text: str) -> str:
    """A drawing whose parts are numbered as they come, not as the process has counted them: the same page again."""
    names: dict[str, str] = {}
    text = _NAMES.sub(lambda match: f'"{names.setdefault(match[1], f"p{len(names)}")}"', text)
    return text.replace("<", "\\u003c")  # which could end the script
