"""Sends hostile inputs to a worker process and watches its time, its memory, and whether it lives."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from campaign.hostile_case import Case, Kind

SECONDS = {"ready": 300.0, "reader": 10.0, "command": 60.0}
"""Of processor time, for each stage; a command that accepts its input also compiles."""
_WALL = 10
"""Times as much by the clock: others may be using the machine."""
MEMORY = 2 << 30
"""Bytes more than before the input."""

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Tally:
    """Outcomes of the inputs of a kind."""

    kind: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    seconds: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> str:
        """One line of the table."""
        counts = f"{self.inputs:6d} {self.refused:8d} {self.accepted:9d} {len(self.failures):9d} {self.seconds:8.0f}"
        return f"{self.kind:<18}{counts}"

    def to_json(self) -> dict[str, Any]:
        """Counts and failures in JSON types."""
        return asdict(self)


HEADER = f"{'kind':<18}{'inputs':>6} {'refused':>8} {'accepted':>9} {'failures':>9} {'seconds':>8}"


class Worker:
    """A process that judges inputs; started when needed, and anew after each death."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def judge(self, request: dict[str, Any]) -> tuple[str, str]:
        """Return verdict and reason; a death, too much time or too much memory is a failure."""
        process = self._process or self._start()
        before = _peak(process.pid, reset=True)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            verdict, text = self._answer(process)
        except (BrokenPipeError, EOFError):
            code = process.wait()
            self.close()
            return "failed", f"the process died: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        if self._process is not None and (grown := _peak(process.pid) - before) > MEMORY:
            self.close()  # what was not returned would count for the next
            return "failed", f"{grown / 2**30:.1f} GB of memory; {verdict} {text}"
        return verdict, text

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")])),
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "COLUMNS": "200",
            "MALLOC_ARENA_MAX": "2",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hostile_worker.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self._cwd, env=environment,
        )  # fmt: skip
        self._buffer = b""
        self._answer(self._process, first="ready")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], first: str = "reader") -> tuple[str, str]:
        stage, begun, cpu = first, time.monotonic(), _cpu_seconds(process.pid)
        while True:
            message = self._line(process, 0.5)
            if message is None:
                used = _cpu_seconds(process.pid) - cpu
                if used > SECONDS[stage] or time.monotonic() - begun > _WALL * SECONDS[stage]:
                    self.close()
                    return "failed", f"more than {SECONDS[stage]:g} s in the {stage}"
            elif "verdict" in message:
                return message["verdict"], message["text"]
            elif message["stage"] == "ready":
                return "ready", ""
            else:
                stage, begun, cpu = message["stage"], time.monotonic(), _cpu_seconds(process.pid)

    def _line(self, process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any] | None:
        """The next message, or ``None`` if there is none within the time."""
        assert process.stdout is not None
        while b"\n" not in self._buffer:
            if not select.select([process.stdout], [], [], timeout)[0]:
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int, *, reset: bool = False) -> int:
    """Largest resident size in bytes since the last reset; after a reset the present one."""
    try:
        if reset:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) << 10  # type: ignore
    except (OSError, AttributeError):
        return 0


def run_kind(
    kind: Kind, n: int, seed: int, good: Path, failures: Path, *, only: int | None = None, commands: bool = True
) -> Tally:
    """Make ``n`` inputs of a kind, have them judged, and keep those that failed in a folder."""
    tally, begun = Tally(kind.name), time.monotonic()
    accepted = 0
    with tempfile.TemporaryDirectory(prefix="campaign_") as scratch:
        worker = Worker(Path(scratch))
        for index in range(n) if only is None else [only]:
            folder = Path(scratch) / f"{index:05d}"
            folder.mkdir()
            case = make_case(kind, seed, index, folder, good)
            due = case.path is None or only is not None or (commands and accepted % kind.every == 0)
            command = list(case.arguments) if due else []
            path = None if case.path is None else str(case.path)
            request = {
                "kind": kind.name,
                "path": path,
                "arguments": command,
                "good": str(good),
                "both": only is not None,
            }
            verdict, text = worker.judge(request)
            if case.refuse and verdict == "accepted":
                verdict, text = "failed", "accepted, although only a refusal is right"
            if case.accept and verdict == "refused":
                verdict, text = "failed", f"refused, although nothing is wrong: {text}"
            accepted += verdict == "accepted"
            _count(tally, verdict, text, index, case)
            if verdict == "failed":
                _keep(folder, failures / kind.name.replace(" ", "_") / f"{index:05d}", case, text, seed)
            shutil.rmtree(folder, ignore_errors=True)
        worker.close()
    tally.seconds = time.monotonic() - begun
    return tally


def make_case(kind: Kind, seed: int, index: int, folder: Path, good: Path) -> Case:
    """The input of a kind with this seed and index, always the same."""
    return kind.make(np.random.default_rng([seed, zlib.crc32(kind.name.encode()), index]), folder, good)


def _count(tally: Tally, verdict: str, text: str, index: int, case: Case) -> None:
    tally.inputs += 1
    tally.refused += verdict == "refused"
    tally.accepted += verdict == "accepted"
    if verdict == "failed":
        tally.failures.append({"index": index, "what": case.what, "text": text})


def _keep(folder: Path, target: Path, case: Case, text: str, seed: int) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1 << 20:
        shutil.copytree(folder, target, symlinks=True)
    target.mkdir(parents=True, exist_ok=True)
    about = {"seed": seed, "what": case.what, "text": text, "arguments": case.arguments}
    (target / "case.json").write_text(json.dumps(about, indent=1))


def groups(failures: list[dict[str, Any]]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Failures that look alike: reason without numbers and names of files, how many, and the first of them."""

    def reason(failure: dict[str, Any]) -> str:
        text = re.sub(r"/\S*|'[^']*'|\"[^\"]*\"", "...", failure["text"])
        return re.sub(r"\d[\d.e+]*", "N", text)[:120]

    counts = Counter(map(reason, failures))
    for text, count in counts.most_common():
        yield text, count, next(failure for failure in failures if reason(failure) == text)
