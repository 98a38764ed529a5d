"""Universal potentials by name: where they come from, what they are, and how to get them onto this computer.

A file is taken from, in this order: the folder ``weights`` of ``$MLIPJAX_DATA`` (default: ``../shared/data``
seen from the checkout), the cache of the user (``$MLIPJAX_CACHE`` or the system's usual place), the network.
Whichever it is, its SHA-256 must be the one recorded here.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
from pathlib import Path
from typing import Any

_TIMEOUT = 30.0  # seconds without an answer
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published potential.

    Attributes:
        name: what ``mlipjax.load`` takes.
        elements: atomic numbers it knows; empty for an embedded model, whose own configuration says it.
        level: what labelled its training data.
        licence: of the weights.
        citation: paper to cite.
        url: where to download it; ``None`` for a model that comes with this package.
        sha256: of the file; ``None`` for a model that comes with this package.
    """

    name: str
    elements: tuple[int, ...]
    level: str
    licence: str
    citation: str
    url: str | None = None
    sha256: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether the model comes with this package."""
        return self.url is None

    @property
    def file_name(self) -> str:
        """Name of the downloaded file; empty for a model that comes with this package."""
        return (self.url or "").rsplit("/", 1)[-1]


_NEQUIX = "https://github.com/atomicarchitects/nequix/raw"
_NEQUIX_ELEMENTS = (*range(1, 84), *range(89, 95))
_NEQUIX_PAPER = "Koker, Kotak, Smidt, Training a foundation model for materials on a budget, arXiv:2508.16067 (2025)"
_PFT_PAPER = (
    "Koker, Gangan, Kotak, Marian, Smidt, PFT: Phonon fine-tuning for machine learned interatomic "
    "potentials, arXiv:2601.07742 (2026)"
)

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="universal",
        elements=(),
        level="GFN1-xTB",
        licence="MIT",
        citation="made by this project: experiments/pretrain.py",
    ),
    Entry(
        name="nequix-mp-1",
        elements=_NEQUIX_ELEMENTS,
        level="PBE(+U), MPtrj",
        licence="CC-BY-4.0",
        citation=_NEQUIX_PAPER,
        url=f"{_NEQUIX}/7c2854de8e754b1a60274c7d9d2e014989ed632e/models/nequix-mp-1.nqx",
        sha256="1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
    ),
    Entry(
        name="nequix-omat-1",
        elements=_NEQUIX_ELEMENTS,
        level="PBE(+U) with VASP 54 pseudopotentials, OMat24",
        licence="CC-BY-4.0",
        citation=_PFT_PAPER,
        url=f"{_NEQUIX}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/nequix-omat-1.nqx",
        sha256="2d0802ae7f5915cb488c44d25649d98404a103697e6500abb40f515e003a46a6",
    ),
    Entry(
        name="nequix-oam-1-pft",
        elements=_NEQUIX_ELEMENTS,
        level="PBE(+U), OMat24 + sAlex + MPtrj, then MDR phonons",
        licence="CC-BY-4.0",
        citation=_PFT_PAPER,
        url=f"{_NEQUIX}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/nequix-oam-1-pft.nqx",
        sha256="4ce693d68886512aab50c84ea2400efd68163e11155f7c7babe98e695177e809",
    ),
)


def find_entry(name: str, entries: tuple[Entry, ...] = ENTRIES) -> Entry:
    """Return the entry called ``name``.

    Raises:
        ValueError: if there is none, with the names that come closest.
    """
    by_name = {entry.name: entry for entry in entries}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known models: {', '.join(by_name)}."
    raise ValueError(f"no model is called {name!r}; {hint}")


def fetch(entry: Entry) -> Path:
    """Return the local file (or folder, for an embedded model) of an entry, downloading it if need be.

    Raises:
        ConnectionError: if the download fails.
        ValueError: if the downloaded file is not the one recorded here.
        FileNotFoundError: if an embedded model is not in this installation.
    """
    if entry.url is None or entry.sha256 is None:
        return embedded_folder(entry.name)
    return find_local(entry) or _download(entry.name, entry.url, entry.sha256, cache_folder() / entry.file_name)


def find_local(entry: Entry) -> Path | None:
    """Return the file (or folder) of an entry if it is on this computer, intact."""
    if entry.embedded:
        try:
            return embedded_folder(entry.name)
        except FileNotFoundError:
            return None
    for folder in (data_folder() / "weights", cache_folder()):
        if _sha256(folder / entry.file_name) == entry.sha256:
            return folder / entry.file_name
    return None


def data_folder() -> Path:
    """Folder of reference data: ``$MLIPJAX_DATA``, or ``../shared/data`` seen from the checkout."""
    return Path(os.environ.get("MLIPJAX_DATA") or _PACKAGE.parents[1] / "shared" / "data")


def cache_folder() -> Path:
    """Folder for downloads: ``$MLIPJAX_CACHE``, or the system's place for caches."""
    import pooch

    return Path(os.environ.get("MLIPJAX_CACHE") or pooch.os_cache("mlipjax"))


def embedded_folder(name: str) -> Path:
    """Folder of a model that comes with this package, in an installation or in a checkout.

    Raises:
        FileNotFoundError: if it is in neither place.
    """
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent / "data" / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"the embedded model {name!r} is neither at {places[0]} nor at {places[1]}.")


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _download(name: str, url: str, sha256: str, target: Path) -> Path:
    import pooch

    downloader: Any = pooch.HTTPDownloader(timeout=_TIMEOUT)
    try:
        path = pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent, downloader=downloader)
    except OSError as error:  # errors of requests are OSErrors too
        reason = " ".join(str(error).split())
        raise ConnectionError(f"{name}: download of {url} failed ({reason}); put the file at {target}.") from None
    except ValueError:
        raise ValueError(
            f"{name}: the file at {url} does not have the recorded SHA-256 {sha256[:12]}... and was deleted: "
            "damaged or replaced on the way. Try again; if it persists, do not use that source."
        ) from None
    return Path(path)
