import base64
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from mlipjax.report import Illustration, Table, write_report

VERSIONS = {"mlipjax": "0.1.0", "jax": "0.10.1"}
TABLE = Table(["arm", "RMSE (meV/atom)", "n"], [["periodic", -1.23456789, 22], ["naive <b>", None, 3]], "Errors.")


class Checker(HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed in order."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def write(path, content=(TABLE,), verdict="Periodic fine-tuning halves the error & holds.", **kwargs):
    write_report(path, title="A <title>", verdict=verdict, content=content, versions=VERSIONS, **kwargs)
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker, " ".join(" ".join(checker.text).split())


def figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2], [3, 4])
    return figure


def test_the_report_is_one_self_contained_page(tmp_path):
    content = [Illustration(figure(), "Error against labels, n = 22.", "Errors"), TABLE]
    checker, text = write(tmp_path / "report.html", content, command="python -m experiments.periodic --seed 1")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert not {"script", "link", "iframe"} & set(checker.tags)
    assert len(checker.sources) == 1
    kind, data = checker.sources[0].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", page)
    order = ["A <title> Periodic fine-tuning halves", "Figure 1. Error against labels", "Table 1. Errors.",
             "python -m experiments.periodic --seed 1", "jax 0.10.1"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_cells(tmp_path):
    _, text = write(tmp_path / "report.html")
    assert "periodic −1.235 22 naive <b> – 3" in text


def test_an_alarm_is_marked(tmp_path):
    write(tmp_path / "report.html", alarm=True)
    assert '<p class="verdict alarm">' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"verdict": " "}, "needs a verdict"),
        ({"content": [Illustration(b"", "", "Errors")]}, "figure 'Errors' has no caption"),
        ({"content": [Table(["a"], [], "")]}, r"columns \['a'\] has no caption"),
        ({"content": [Table(["a", "b"], [[1]], "c")]}, "has 1 cells for 2 columns"),
    ],
)
def test_reports_that_cannot_be_judged_are_refused(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "report.html", **kwargs)
    assert list(tmp_path.iterdir()) == []
