"""Reports in a real browser: no error, every figure there, text as text, and nothing asked of other hosts."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from ase.build import bulk

from mlipjax.report import Illustration, Table, interactive_curves, write_report
from mlipjax.report.structures import outstanding

SECONDS = 20  # of the page's own clock

WATCH = """<script>
const seen = {errors: [], ran: false};
window.addEventListener("error", (event) => seen.errors.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
for (const name of ["error", "warn"]) {
  const own = console[name];
  console[name] = (...words) => { if (name === "error") seen.errors.push(words.join(" ")); own(...words); };
}
const all = (root, what) => [...root.querySelectorAll("*")].flatMap(
  (one) => [...(one.matches(what) ? [one] : []), ...(one.shadowRoot ? all(one.shadowRoot, what) : [])]);
window.addEventListener("load", () => setTimeout(() => {
  seen.images = [...document.images].map((image) => image.naturalWidth);
  seen.canvases = all(document, "canvas").map((canvas) => canvas.width * canvas.height);
  seen.maps = all(document, ".js-plotly-plot").length;
  seen.curves = typeof Bokeh === "undefined" ? 0 : Bokeh.documents.length;
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.documentElement.dataset.seen = JSON.stringify(seen);
}, 12000));
</script>"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    return found


def looked_at(browser, page, folder):
    """Actions of a page in a browser, and the words that stand on it."""
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    (folder / "watched.html").write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--dump-dom"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--virtual-time-budget={1000 * SECONDS}"]
    address = (folder / "watched.html").as_uri()
    done = subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=300)
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr[-2000:]
    return json.loads(unescape(seen[1])), done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with one of everything, and with words that are no HTML."""
    pytest.importorskip("bokeh")
    pytest.importorskip("chemiscope")
    frames = [bulk("MgO", "rocksalt", a=4.2 + 0.02 * i, cubic=True) for i in range(6)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
    errors = [np.random.default_rng(seed).uniform(0.0, 10.0 + seed, 8) for seed in range(6)]
    figure, viewer = outstanding(
        frames,
        [error.mean() for error in errors],
        quantity="force error (meV/Å)",
        title="Frames of </script><script>seen.ran = true</script>",
        colors=(errors, "force error (meV/Å)"),
    )
    losses = {"train": [1.0, 0.5, 0.3], "validation": [1.1, 0.6, 0.5]}
    panels = {"loss": losses, "MAE (meV/Å)": {"validation": [9.0, 7.0, 6.0]}}
    words = {"x_label": "epoch", "caption": "Losses.", "title": "Training"}
    curves = interactive_curves([1, 2, 3], panels, **words)
    table = Table(["file"], [["<script>seen.ran = true</script>"]], "Names.")
    content = [curves, Illustration(figure, "The largest errors.", "Worst"), *viewer, table]
    path = tmp_path_factory.mktemp("report") / "report.html"
    verdict = 'On "a<b>.extxyz" & others <script>seen.ran = true</script>.'
    write_report(path, title="Å <title>", verdict=verdict, content=content, versions={"jax": "0"})
    return path


def test_a_report_runs_without_an_error_and_shows_all_its_figures(browser, report, tmp_path):
    seen, dom = looked_at(browser, report, tmp_path)
    assert seen["errors"] == []
    assert seen["images"]
    assert min(seen["images"]) > 300
    assert seen["curves"] == 1
    assert seen["maps"] == 1
    assert max(seen["canvases"]) > 10_000  # the structure
    assert [name for name in seen["loaded"] if not name.startswith(("data:", "blob:", "file:"))] == []
    assert not seen["ran"]
    assert "&lt;script&gt;seen.ran = true&lt;/script&gt;." in dom


def test_scripts_are_in_the_page_once(report):
    text = report.read_text(encoding="utf-8")
    assert text.count("Bokeh.embed") < 20
    assert 3e6 < len(text) < 6e6


def test_an_error_of_a_page_is_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html><head></head><body><script>nothing();</script></body></html>")
    seen, _ = looked_at(browser, page, tmp_path)
    assert any("nothing" in error for error in seen["errors"])
