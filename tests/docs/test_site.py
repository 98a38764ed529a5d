"""The documentation site: built without a warning, with every public name, and nothing from other hosts."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import docs_pages as pages
import pytest

PACKAGES = ["mlipjax", *sorted(f"mlipjax.{init.parent.name}" for init in pages.ROOT.glob("mlipjax/*/__init__.py"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, and what the build said."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip('the site is built by zensical: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(pages.DOCS, folder / "docs")  # zensical follows no links
    shutil.copy(pages.ROOT / "mkdocs.yml", folder)
    for name in ("experiments", "mlipjax", "CHANGELOG.md"):
        (folder / name).symlink_to(pages.ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return folder / "site", said


def test_the_build_has_nothing_to_complain_about(site):
    folder, said = site
    assert "No issues found" in said
    assert "griffe:" not in said, said  # docstrings that name arguments which are not there
    built = {path.relative_to(folder).with_suffix(".md").as_posix() for path in folder.rglob("*.html")} - {"404.md"}
    assert built == set(map(pages.name_of, pages.PAGES))


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "mlipjax.cli"])
def test_every_public_name_has_its_place(package, site):
    folder, _ = site
    page = folder / "api" / f"{package.rpartition('.')[2]}.html"
    names = [name for name in getattr(importlib.import_module(package), "__all__", []) if name != "__version__"]
    if not names:
        return
    anchors = set(re.findall(r'id="(mlipjax[^"]*)"', page.read_text(encoding="utf-8")))
    if package == "mlipjax":  # verbs have a page of their own
        anchors |= set(re.findall(r'id="(mlipjax[^"]*)"', (folder / "api/verbs.html").read_text(encoding="utf-8")))
        package = r"mlipjax(\.verbs)?"
    # a function that is called like its module is documented where it is defined
    missing = [n for n in names if not any(re.fullmatch(rf"{package}\.({n}\.)?{n}", anchor) for anchor in anchors)]
    assert missing == []


class Loaded(HTMLParser):
    """Addresses that a browser fetches for a page; links that a reader may follow are not among them."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses += [given.get("src"), given.get("srcset")]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href"))
        assert "mermaid" not in (given.get("class") or ""), "diagrams are drawn by a script of another host"


def elsewhere(addresses):
    return [address for address in addresses if address and re.match(r"(https?:)?//", address)]


def test_nothing_is_loaded_from_other_hosts(site):
    folder, _ = site
    files = [path for path in folder.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            parser = Loaded()
            parser.feed(text)
            assert elsewhere(parser.addresses) == [], path
            assert '"repo_url"' not in text
        assert elsewhere(re.findall(r"url\(\s*[\"']?([^\"')]+)", text)) == [], path
        assert elsewhere(re.findall(r"@import\s+[\"']([^\"']+)", text)) == [], path


def test_a_font_of_another_host_is_seen():
    parser = Loaded()
    parser.feed('<link rel="stylesheet" href="https://fonts.example/css"><a href="https://example.org">a</a>')
    assert elsewhere(parser.addresses) == ["https://fonts.example/css"]
