"""A process that reads hostile inputs and says what happened to each; ``hostile_runs`` starts and watches it.

Lines of JSON: in, ``{"kind", "path", "arguments", "good"}``; out, ``{"stage"}`` when a stage begins and at last
``{"verdict", "text", "memory"}`` with the verdict ``accepted``, ``refused`` or ``failed``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ADDRESS_SPACE = 6 << 30
"""Bytes beyond what the process has when it begins."""

_LONGEST_MESSAGE = 2000
_NOT_A_NUMBER = re.compile(r"(?<![\w./\[-])[-+]?(nan|inf)(?![\w./\]-])", re.IGNORECASE)


def main() -> None:
    """Answer requests until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not speak in our place
    sys.setrecursionlimit(1000)
    from campaign import hostile_kinds as kinds

    import mlipjax.cli.main  # noqa: F401  (before the first input is timed)

    warnings.simplefilter("ignore")
    _limit_memory()
    print(json.dumps({"stage": "ready"}), file=out)
    for line in sys.stdin:
        request = json.loads(line)

        def stage(name: str) -> None:
            print(json.dumps({"stage": name}), file=out)

        verdict, text = _judge(kinds.BY_NAME[request["kind"]], request, stage)
        print(json.dumps({"verdict": verdict, "text": text}), file=out)


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text()
    size = int(re.search(r"VmSize:\s+(\d+)", status).group(1)) << 10  # pyright: ignore[reportOptionalMemberAccess]
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judge(kind: Any, request: dict[str, Any], stage: Any) -> tuple[str, str]:
    path, arguments = request["path"], request["arguments"]
    verdict, text = "accepted", ""
    if path is not None and kind.read is not None:
        stage("reader")
        verdict, text = judge_call(lambda: kind.read(Path(path), Path(request["good"])), Path(path))
    if arguments and (verdict == "accepted" or request["both"]):
        stage("command")
        again, said = judge_command(arguments)
        if again == "failed" or verdict == "failed":
            return "failed", said if again == "failed" else text
        return again, said
    return verdict, text


def judge_call(call: Any, path: Path) -> tuple[str, str]:
    """Call a reader; whatever it raises must be an error for users, which names the file."""
    try:
        call()
    except AssertionError as error:
        return "failed", f"accepted what makes no sense: {error}"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        explained = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("mlipjax.")
        if not explained or isinstance(error, UnicodeError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            return "failed", f"{text[:300]} ({Path(place.filename).name}:{place.lineno})"
        if path.name not in str(error) and " ".join(path.name.split()) not in str(error):
            return "failed", f"does not name the file: {text[:300]}"
        if len(text) > _LONGEST_MESSAGE:
            return "failed", f"a message of {len(text)} characters: {text[:200]}"
        return "refused", text[:300]
    return "accepted", ""


def judge_command(arguments: list[str]) -> tuple[str, str]:
    """Run a command in this process; its exit code and what it prints must be those of success or of one clear line."""
    from mlipjax.cli.main import main as run_command

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        return "failed", f"the command raised {type(error).__name__}: {str(error)[:300]}"
    return judge_output(code, out.getvalue(), err.getvalue())


def judge_output(code: object, out: str, err: str) -> tuple[str, str]:
    """Judge a command's exit code and output."""
    lines = [line for line in err.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else ""
    if "Traceback" in err or "fault of the program" in err:
        return "failed", f"exit code {code}: {last}"
    if any(not line.startswith(("error: ", "note: ", "warning: ")) for line in lines):
        odd = next(line for line in lines if not line.startswith(("error: ", "note: ", "warning: ")))
        return "failed", f"exit code {code}, and this on stderr: {odd[:300]}"
    if code in (1, 2):
        errors = [line for line in lines if line.startswith("error: ")]
        if len(errors) != 1 or len(errors[0]) > _LONGEST_MESSAGE:
            return "failed", f"{len(errors)} lines of errors, the last of {len(last)} characters: {last[:200]}"
        return "refused", last
    if code != 0:
        return "failed", f"exit code {code}: {last}"
    if found := _NOT_A_NUMBER.search(out):
        line = next(line for line in out.splitlines() if _NOT_A_NUMBER.search(line))
        return "failed", f"exit code 0, and prints {found.group()!r}: {line.strip()[:200]}"
    return "accepted", ""


if __name__ == "__main__":
    main()
