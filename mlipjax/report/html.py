"""One HTML file that needs nothing else: verdict, figures with captions, tables, versions."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mlipjax.files import write_atomic
from mlipjax.report.style import figure_png

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       max-width: 60rem; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
.verdict { border-left: 4px solid #0072b2; background: #f3f7fa; padding: .9rem 1.1rem; font-size: 1.05rem; margin: 0; }
.verdict.alarm { border-color: #d55e00; background: #fdf5f0; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption, caption { color: #444; font-size: .9rem; text-align: left; margin-top: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { caption-side: top; margin-bottom: .4rem; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e2e2e2; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1.5px solid #777; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; font-size: .85rem; }
dt { color: #555; } dd { margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
.pair > div { height: 26rem; position: relative; }
code { font-family: ui-monospace, monospace; font-size: .9em; background: #f3f3f3; padding: .1em .3em; }
@media print { body { max-width: none; } figure, table { break-inside: avoid; } }
"""


@dataclasses.dataclass(frozen=True)
class Illustration:
    """A figure with its caption (what is drawn, how many frames and seeds, what the band means).

    Attributes:
        figure: matplotlib figure, or the bytes of a PNG.
        caption: one to three sentences; required, because a figure without one cannot be judged.
        title: short, for the heading above and for readers who cannot see the image.
        name: of a PNG beside the page that holds it too; none by default.
    """

    figure: Figure | bytes
    caption: str
    title: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with its caption; numbers are shown with four significant digits, ``None`` as a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str


@dataclasses.dataclass(frozen=True)
class Interactive:
    """Content that a reader can point at and turn, drawn by scripts that the page brings along.

    Attributes:
        body: HTML, with a script of its own that draws into it.
        scripts: JavaScript that it needs, each in the page once.
        caption: one to three sentences.
        title: short, for the heading above.
    """

    body: str
    scripts: tuple[str, ...]
    caption: str
    title: str


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    verdict: str,
    content: Sequence[Illustration | Interactive | Table],
    versions: Mapping[str, str],
    command: str | None = None,
    alarm: bool = False,
) -> None:
    """Write a report as one HTML file without external resources, and figures that have a name beside it.

    Args:
        path: file to write, all of it or nothing.
        title: of the page.
        verdict: one paragraph that a hurried reader can act on.
        content: figures and tables in order.
        versions: what the result depends on, as ``mlipjax.runtime.versions`` returns it.
        command: the command line that made the report.
        alarm: colour the verdict as a warning.

    Raises:
        ValueError: if the verdict or a caption is empty, or a table row has the wrong length.
    """
    if not verdict.strip():
        raise ValueError("a report needs a verdict: one paragraph on what was found.")
    scripts = dict.fromkeys(text for item in content if isinstance(item, Interactive) for text in item.scripts)
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        *map(_script, scripts),
        "</head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict{" alarm" if alarm else ""}">{escape(verdict)}</p>',
    ]
    n_figures = n_tables = 0
    for item in content:
        if isinstance(item, Illustration | Interactive):
            n_figures += 1
            parts.append(_illustration(item, n_figures, Path(path).parent))
        else:
            n_tables += 1
            parts.append(_table(item, n_tables))
    parts.append("<h2>How this was made</h2>")
    if command:
        parts.append(f"<p><code>{escape(command)}</code></p>")
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in versions.items())
    parts.append(f"<dl>{pairs}</dl></body></html>\n")
    write_atomic(path, "\n".join(parts))


def _illustration(item: Illustration | Interactive, number: int, folder: Path) -> str:
    if not item.caption.strip():
        raise ValueError(f"figure {item.title!r} has no caption.")
    body = item.body if isinstance(item, Interactive) else _image(item, folder)
    return (
        f"<h2>{escape(item.title)}</h2><figure>{body}"
        f"<figcaption><strong>Figure {number}.</strong> {escape(item.caption)}</figcaption></figure>"
    )


def _image(item: Illustration, folder: Path) -> str:
    png = item.figure if isinstance(item.figure, bytes) else figure_png(item.figure)
    if item.name:
        write_atomic(folder / f"{item.name}.png", png)
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(item.title)}" src="data:image/png;base64,{data}">'


def _script(text: str) -> str:
    # inside a text of JavaScript the backslash means nothing, and to HTML the script does not end there
    harmless = text.replace("</script", "<\\/script")
    return f"<script>{harmless}</script>"


def _table(item: Table, number: int) -> str:
    if not item.caption.strip():
        raise ValueError(f"the table with columns {list(item.columns)} has no caption.")
    for row in item.rows:
        if len(row) != len(item.columns):
            raise ValueError(f"table row {list(row)} has {len(row)} cells for {len(item.columns)} columns.")
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in item.columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in item.rows)
    return (
        f'<div class="wide"><table><caption><strong>Table {number}.</strong> {escape(item.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return escape(str(value))
