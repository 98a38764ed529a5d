"""Universal potentials by name: where they come from, what they are, and how to get them onto this computer.

A file is taken from, in this order: the folder ``weights`` of ``$MLIPJAX_DATA``, if that is set, the cache of the user
(``$MLIPJAX_CACHE`` or the system's usual place), the package of the model's authors if it is installed and holds the
file (nothing of it is imported), the network.
Whichever it is, its SHA-256 must be the one recorded here. Entries whose hash nobody of this project has checked say
so (``sha256`` is ``None``): theirs is recorded in the cache at the first use, with a notice, and must be the same from
then on.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from mlipjax.files import file_digest, replace_on_success
from mlipjax.models._published import ENTRIES, Entry
from mlipjax.reading import read_json

_TIMEOUT = 30.0  # seconds without an answer
_PACKAGE = Path(__file__).resolve().parents[1]
_HASHES = "first_use_sha256.json"


def find_entry(name: str) -> Entry:
    """Return the entry called ``name``.

    Raises:
        ValueError: if there is none, with the names that come closest.
    """
    by_name = {entry.name: entry for entry in known_entries()}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known models: {', '.join(by_name)}."
    raise ValueError(f"no model is called {name!r}; {hint}")


def find_known(name: str) -> Entry | None:
    """Return the entry called ``name``; ``None`` for a file, a folder or another program's model."""
    return next((entry for entry in known_entries() if entry.name == name), None)


def known_entries() -> tuple[Entry, ...]:
    """Return all published potentials that have a name."""
    return ENTRIES


def fetch(entry: Entry) -> Path:
    """Return the local file (or folder, for an embedded model) of an entry, downloading it if need be.

    The terms of a model are shown before its download, the hash of an unverified file when it is first used.

    Raises:
        ConnectionError: if the download fails.
        ValueError: if the file is not the one recorded here, or for an unverified one, not that of the first use.
        FileNotFoundError: if an embedded model is not in this installation.
    """
    if entry.url is None:
        return embedded_folder(entry.name)
    if local := find_local(entry):
        return local
    if not entry.verified:
        for folder in _folders():
            if (folder / entry.file_name).is_file():
                return _trust(entry, folder / entry.file_name)
    if entry.terms is not None:
        print(f"{entry.name}: {entry.terms}", file=sys.stderr, flush=True)
    path = _download(entry.name, entry.url, entry.sha256, cache_folder() / entry.file_name)
    return path if entry.verified else _trust(entry, path)


def find_local(entry: Entry) -> Path | None:
    """Return the file (or folder) of an entry if it is on this computer, intact."""
    if entry.embedded:
        try:
            return embedded_folder(entry.name)
        except FileNotFoundError:
            return None
    expected = entry.sha256 or _recorded().get(entry.file_name)
    for file in (*(folder / entry.file_name for folder in _folders()), *_in_package(entry)):
        if expected is not None and file.is_file() and file_digest(file) == expected:
            return file
    return None


def _in_package(entry: Entry) -> list[Path]:
    """Place where an installed package would have the file of an entry."""
    name, _, rest = (entry.package or "").partition("/")
    spec = importlib.util.find_spec(name) if name else None
    return [Path(place) / rest for place in (spec and spec.submodule_search_locations) or ()]


def _folders() -> tuple[Path, Path]:
    return data_folder() / "weights", cache_folder()


def _recorded() -> dict[str, str]:
    """SHA-256 of unverified files at their first use, by file name."""
    path = cache_folder() / _HASHES
    recorded = read_json(path) if path.is_file() else {}
    if not isinstance(recorded, dict):
        raise ValueError(f"{path}: found a {type(recorded).__name__}, expected hashes by file name; delete it.")
    return recorded


def _trust(entry: Entry, path: Path) -> Path:
    """Record the hash of an unverified file, or compare it with the one recorded."""
    found, recorded = file_digest(path), _recorded()
    expected = recorded.setdefault(entry.file_name, found or "")
    record = cache_folder() / _HASHES
    if found != expected:
        raise ValueError(
            f"{entry.name}: {path} has SHA-256 {found}, but {expected} when it was first used (recorded in {record}): "
            "damaged or replaced. Delete the file to download it again; if you trust the new one, delete the record."
        )
    record.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(record) as file:
        file.write_text(json.dumps(recorded, indent=1), encoding="utf-8")
    print(
        f"{entry.name}: no verified SHA-256 of this file is known; trusted at first use and recorded in {record}: "
        f"{found}",
        file=sys.stderr,
        flush=True,
    )
    return path


def data_folder() -> Path:
    """Folder of reference data: ``$MLIPJAX_DATA``, or ``data`` in the cache of the user."""
    return Path(os.environ.get("MLIPJAX_DATA") or cache_folder() / "data")


def cache_folder() -> Path:
    """Folder for downloads: ``$MLIPJAX_CACHE``, or the system's place for caches."""
    import pooch

    return Path(os.environ.get("MLIPJAX_CACHE") or pooch.os_cache("mlipjax"))


def programs_folder() -> Path:
    """Folder of compiled programs, in the cache (``runtime.keep_programs``)."""
    return cache_folder() / "programs"


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


def _download(name: str, url: str, sha256: str | None, target: Path) -> Path:
    import pooch

    print(f"{name}: downloading {url} to {target}", file=sys.stderr, flush=True)
    downloader: Any = pooch.HTTPDownloader(timeout=_TIMEOUT)
    # its messages are for who writes the call ("use this value as known_hash ..."), and go to the stderr of its import
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        known = None if sha256 is None else f"sha256:{sha256}"
        path = pooch.retrieve(url, known, target.name, target.parent, downloader=downloader)
    except OSError as error:  # errors of requests are OSErrors too
        reason = " ".join(str(error).split())
        raise ConnectionError(f"{name}: download of {url} failed ({reason}); put the file at {target}.") from None
    except ValueError:
        raise ValueError(
            f"{name}: the file at {url} does not have the recorded SHA-256 {str(sha256)[:12]}... and was deleted: "
            "damaged or replaced on the way. Try again; if it persists, do not use that source."
        ) from None
    finally:
        logger.setLevel(level)
    return Path(path)
