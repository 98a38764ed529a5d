"""Records of a run, on disk as they are made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mlipjax.files import naming, write_atomic

HISTORY = "history.jsonl"
"""Name of the file in the folder of a run."""


class History:
    """Records by key, in a file with one JSON object per line; a later record replaces an earlier one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._records: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._records = {json.dumps(record["key"]): record for record in read_history(path)}
            write_atomic(path, "".join(json.dumps(record) + "\n" for record in self._records.values()))

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, on the disk before this returns."""
        self._records[json.dumps(record["key"])] = record
        if self._path is not None:
            with naming(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All records, in the order in which their pieces were first done."""
        return list(self._records.values())


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file, in the order in which their pieces were first done."""
    records: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        # a kill may leave half a line at the end; its piece is done again
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[json.dumps(record["key"])] = record
    return list(records.values())
