"""What the entry points of the experiments share: their options, one line for errors, a folder for one run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from mlipjax import runtime
from mlipjax.cli.main import guarded
from mlipjax.files import make_folder, write_atomic
from mlipjax.locks import LOCK, Lock


def run_experiment(
    main: Callable[[Any], None],
    presets: Mapping[str, Any],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the options of the command line (or ``arguments``), run ``main`` with them, return the exit code.

    ``--preset NAME`` chooses among named configs, the first by default; the other options change its fields. Errors
    that a user can mend are one line on stderr; ``MLIPJAX_TRACEBACK=1`` shows where they come from. Options with a
    method ``resolved`` are resolved first.
    """
    names = "" if len(presets) == 1 else f"\n\n--preset NAME chooses the defaults: {', '.join(presets)}."
    described = f"{(description or '').strip()}{names}"

    def action() -> None:
        name, rest = _take_preset(list(sys.argv[1:] if arguments is None else arguments), list(presets))
        default = presets[name]
        prog = f"python -m {type(default).__module__.removesuffix('.config')}"
        config = tyro.cli(type(default), default=default, args=rest, prog=prog, description=described)
        runtime.setup_allocator()
        main(config.resolved() if hasattr(config, "resolved") else config)

    return guarded(action, also=(RuntimeError,))


def _take_preset(arguments: list[str], names: list[str]) -> tuple[str, list[str]]:
    """Take ``--preset NAME`` out of the arguments; by default the first name."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--preset":
            found = value if equals else "".join(arguments[position + 1 : position + 2])
            if found not in names:
                raise ValueError(f"--preset is {found!r}; choose one of {', '.join(names)}.")
            return found, arguments[:position] + arguments[position + (1 if equals else 2) :]
    return names[0], arguments


def settings_of(config: Any, apart: Sequence[str] = ("out",)) -> dict[str, str]:
    """Every option as text, but for those that do not change results."""
    return {key: str(value) for key, value in dataclasses.asdict(config).items() if key not in apart}


def claim_folder(folder: Path, settings: dict[str, str]) -> None:
    """Make the folder of a run, keep other processes out of it, and note its settings there.

    A folder in which an earlier run left nothing but its settings is free.

    Raises:
        ValueError: if the folder holds a run with other settings.
        InUseError: if another process works in it.
    """
    make_folder(folder)
    lock = Lock(folder)
    _LOCKS.append(lock)
    file = folder / "settings.json"
    present = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if present and any(path != file and path.name != LOCK and path.suffix != ".tmp" for path in folder.iterdir()):
        changed = [key for key in settings if present.get(key) != settings[key]]
        if changed:
            key = changed[0]
            raise ValueError(
                f"{folder} holds a run with {key}={present.get(key)}, this one has {key}={settings[key]}; "
                "choose another --out or delete the folder"
            )
        return
    write_atomic(file, json.dumps(settings, indent=1))


_LOCKS: list[Lock] = []
"""Of this process, until it ends."""
