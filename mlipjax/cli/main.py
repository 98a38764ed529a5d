"""Choosing a command, and what happens to its errors.

A command is a module of this package with a function ``run(command)``, and the dataclass of its argument in
``mlipjax.cli.options``, called like it. The module is imported when a command line is right, so that ``--help`` does
not load JAX.

Exit codes: 0 success; 1 the command could not be carried out (one line on stderr says why); 2 the command line is
wrong; 130 interrupted. Errors that are no one's input are bugs: their line says so. ``MLIPJAX_TRACEBACK=1`` shows where
any error comes from. Warnings are one line each on stderr, said once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import io
import os
import shutil
import sys
import textwrap
import traceback
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlipjax.cli.bounds import check_arguments, option
from mlipjax.cli.call import given
from mlipjax.notices import Notice, notice

COMMANDS = {
    "finetune": "fine-tune a model on labelled structures",
    "calibrate": "error bars of a model, on structures it was not trained on",
    "evaluate": "errors of a model on labelled structures",
    "predict": "energies, forces and stresses of structures, into a file",
    "relax": "positions and cells at rest, under a pressure, with fixed atoms",
    "doctor": "check a model and labelled structures before fine-tuning",
    "periodic": "simulate, label, fine-tune and drive on, round by round",
    "distill": "a small, fast model from labels of a large one",
    "simulate": "molecular dynamics with a model (also: mlipjax md)",
    "monitor": "whether a model knows structures like these",
    "compare-representations": "what fine-tuning did to the features of atoms",
    "neb": "minimum-energy path and barrier between two structures",
    "slide": "energy of sliding the layers of a crystal",
    "probe": "equation of state, elastic constants, phonons, defects, short distances, dynamics",
    "engine": "a folder in which i-PI or LAMMPS runs with a model",
    "export": "a program that LAMMPS runs on many processes by itself",
    "models": "list the models known by name",
    "convert": "save a model, or labelled structures, in another format",
}

_ALIASES = {"md": "simulate"}
_OPTIONS = ("training", "judging", "structures", "formats")
"""Modules of ``cli.options`` that hold those of commands."""
_LONGEST = 4000
_PACKAGE = str(Path(__file__).resolve().parents[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mlipjax`` with the arguments of the process, or the given ones; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _tolerate_encodings()
    quiet_xla()
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in ("-h", "--help"):
        return guarded(lambda: print(_usage()))
    if first == "--version":
        return guarded(_print_versions)
    name = _ALIASES.get(first, first)
    if name not in COMMANDS:
        print(_complaint(first), file=sys.stderr)
        return 2
    if asked := {"-h", "--help", "--help-all"} & set(rest):
        return guarded(lambda: _print_help(name, everything="--help-all" in asked))
    code = guarded(lambda: _run(name, rest), spell=lambda text: _spelt(text, name))
    if code and "--distributed" in rest:
        from mlipjax.hosts import leave

        leave(code)
    return code


def _tolerate_encodings() -> None:
    """Let characters that the terminal lacks (Å in ASCII, bytes of a file name that are no text) become ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quiet_xla() -> None:
    """Let XLA log nothing, unless something else was asked for; JAX, which must not be imported yet, asks for errors.

    Of every program that is read from disk XLA says, at length and wrongly, that it may not run on this machine; and of
    a slow compilation that it is one. What fails is raised as an exception besides.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _usage() -> str:
    width, columns = max(map(len, COMMANDS)) + 3, min(shutil.get_terminal_size((80, 24)).columns, 120)
    lines = [
        textwrap.fill(
            text,
            columns,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name, text in COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: mlipjax COMMAND [options]",
            "",
            "Adapt a universal machine-learned interatomic potential to a material.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --version versions of mlipjax and of what its results depend on",
            "",
            "mlipjax COMMAND --help explains a command's options.",
        ]
    )


def _complaint(name: str) -> str:
    if not name:
        return f"mlipjax: give a command: {', '.join(COMMANDS)} (mlipjax --help explains them)"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
    return f"mlipjax: no command is called {name!r}; {hint}"


def _run(name: str, arguments: list[str]) -> None:
    from mlipjax.cli.spec import check_once, expand

    options = options_of(name)
    check_once(arguments, options)
    arguments = expand(arguments, options)
    check_arguments(arguments)
    command = _parsed(name, arguments, options)
    _check_given(command)
    from mlipjax.cli.output import check_outputs
    from mlipjax.cli.unused import say_unused

    say_unused(name, command)
    check_outputs(command)
    command = _joined(command)
    _set_up(getattr(command, "device", "auto"), given(command).get("dtype", "float32"))
    from mlipjax import runtime
    from mlipjax.models import registry

    runtime.keep_programs(registry.programs_folder())
    importlib.import_module(f"mlipjax.cli.{name.replace('-', '_')}").run(command)


def _parsed(name: str, arguments: list[str], options: Any) -> Any:
    """The options of a command; what its settings refuse is an error like any other, not the parser's box."""
    import tyro

    from mlipjax.cli.refusals import refusal

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(options, args=arguments, prog=f"mlipjax {name}")
    except SystemExit as stop:
        # the parser raises its own error where a dataclass raises one, and leaves the program where it handles that
        refused = getattr(stop.__context__, "__context__", None)
        if isinstance(refused, ValueError) and _place(refused).filename.startswith(_PACKAGE):
            raise refused from None
        print("error:", refusal(box.getvalue(), f"mlipjax {name}", arguments, options), file=sys.stderr)
        raise


def _spelt(text: str, name: str) -> str:
    """A message in the words of a command."""
    from mlipjax.cli.wording import in_options

    return in_options(text, options_of(name))


def _check_given(command: Any) -> None:
    """Refuse an option that must be given, and is, but with no value after it."""
    for field in dataclasses.fields(command):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and getattr(command, field.name) == ():
            raise ValueError(f"{option(field.name)} is given without a value; name one at least.")


def options_of(name: str) -> Any:
    """Return the dataclass of a command's options, which is called like it: ``CompareRepresentations``, say."""
    kind = _ALIASES.get(name, name).title().replace("-", "")
    homes = (importlib.import_module(f"mlipjax.cli.options.{home}") for home in _OPTIONS)
    return next(vars(home)[kind] for home in homes if kind in vars(home))


def _joined(command: Any) -> Any:
    """The command, as one of several processes if it is to be: the first alone prints."""
    if not getattr(command, "distributed", False):
        return command
    if ":" in command.device:
        raise ValueError(f"--device {command.device} is one device of one process; with --distributed name a kind.")
    from mlipjax import hosts

    hosts.join()
    return command if hosts.is_first() else dataclasses.replace(command, quiet=True, json=None)


def _set_up(device: str = "auto", dtype: str = "float32") -> None:
    """Prepare the process as every command needs it."""
    import jax

    from mlipjax import runtime

    runtime.prepare_process()
    runtime.use_device(device)
    runtime.select_dtype(dtype)
    for problem in runtime.known_problems(jax.__version__, jax.default_backend()):
        print(f"warning: {problem}", file=sys.stderr)
    if device == "auto" and (idle := runtime.idle_accelerator()):
        notice(idle)


def _print_help(name: str, everything: bool) -> None:
    from mlipjax.cli.help import help_text

    print(help_text(f"mlipjax {name}", options_of(name), everything=everything))


def _print_versions() -> None:
    from mlipjax import runtime

    _set_up()
    print(runtime.describe(runtime.versions()))


def guarded(
    action: typing.Callable[[], None],
    also: tuple[type[Exception], ...] = (),
    spell: typing.Callable[[str], str] = str,
) -> int:
    """Run, and turn errors that users can do something about into one line and an exit code.

    Args:
        action: what to run.
        also: errors to explain besides those of bad input and of this package.
        spell: the words of a command for those of the library, in these errors and in warnings.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _printer(spell)
            action()
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a closed pipe shows here, not after the exit code is decided
    except BrokenPipeError:
        _let_go()  # the reader of a pipe (head, less) has seen enough
    except KeyboardInterrupt:
        print("mlipjax: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("MLIPJAX_TRACEBACK"):
            raise
        explained = _is_explained(error) or isinstance(error, also)
        print(f"error: {spell(one_line(error)) if explained else _unexpected(error)}", file=sys.stderr)
        _let_go()
        return 1
    return 0


def _let_go() -> None:
    """Drop what standard output does not take: Python would try again at exit, complain, and change the exit code."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(text: object) -> str:
    """Return a message without line breaks; of a very long one (it repeats what a file says) beginning and end."""
    if isinstance(text, OSError) and isinstance(text.filename, str):
        text = f"{text.filename}: {text.strerror}"  # without its number
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}"


def _unexpected(error: Exception) -> str:
    place = _place(error)
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    return (
        f"{type(error).__name__}: {one_line(error)} ({where}). This is a fault of the program, not of your input; "
        "please report it with what MLIPJAX_TRACEBACK=1 shows."
    )


def _place(error: BaseException) -> traceback.FrameSummary:
    return traceback.extract_tb(error.__traceback__)[-1]


def _printer(spell: typing.Callable[[str], str]) -> typing.Callable[..., None]:
    """Return the printer of warnings: one line on stderr, each text once, in the words of a command."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: object, **options: object) -> None:
        line = f"{'note' if issubclass(category, Notice) else 'warning'}: {spell(one_line(message))}"
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    return show


def _is_explained(error: Exception) -> bool:
    """Tell whether the message of an error is for users: bad input, files, network, and the errors of this package."""
    return isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("mlipjax.")
