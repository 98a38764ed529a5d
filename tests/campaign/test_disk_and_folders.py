"""A small disk, a folder that cannot be written to, and two processes in one folder, at every command that writes."""

import contextlib
import os
import re
import subprocess
import sys
import time

import pytest
from campaign.good_files import make_good_files
from campaign.hostile_worker import judge_output


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders") / "good"
    make_good_files(folder)
    return folder


def commands(good, out):
    """A command of each kind that writes, and what it writes, in the folder ``out``."""
    model = ["--model", good / "model"]
    crystal, crystals = good / "crystal.extxyz", good / "crystals.extxyz"
    training = ["--epochs", 2, "--batch-size", 2, "--valid-fraction", 0.3, "--anchor", "none"]
    return {
        "finetune": ["finetune", *model, "--train", crystals, "--out", out / "run", *training],
        "md": ["md", *model, "--structure", crystal, "--out", out / "md.extxyz", "--steps", 40, "--every", 1,
               "--ensemble", "nve"],
        "convert a model": ["convert", *model, "--out", out / "copy"],
        "convert data": ["convert", "--data", crystals, "--out", out / "store"],
        "monitor": ["monitor", *model, "--reference", good / "reference.extxyz", "--data", crystals, "--level", 0.2,
                    "--components", 2, "--out", out / "monitor"],
        "evaluate": ["evaluate", *model, "--data", crystals, "--json", out / "errors.json"],
        "figure": ["probe", "rdf", "--trajectory", good / "reference.extxyz", "--figure", out / "rdf.png"],
    }  # fmt: skip


NAMES = ["finetune", "md", "convert a model", "convert data", "monitor", "evaluate", "figure"]


def start(arguments, cache=True, **options):
    command = [sys.executable, "-m", "mlipjax.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not cache:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)


def refused_in_one_line(process):
    """The error of a command that must have one."""
    out, err = process.communicate(timeout=600)
    verdict, text = judge_output(process.returncode, out, err)
    assert (process.returncode, verdict) == (1, "refused"), text or out[-300:]
    return text


@contextlib.contextmanager
def mounted(folder, options):
    """A file system in memory; without the right to mount one, the test is skipped."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True) if hasattr(os, "geteuid") else None
    if done is None or done.returncode:
        pytest.skip(f"mounting a file system needs root: {'' if done is None else done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line_and_the_command_works_when_there_is_room(name, good, tmp_path):
    with mounted(tmp_path / "disk", "size=64k") as disk:
        filling = disk / "filling"
        filling.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
        text = refused_in_one_line(start(commands(good, disk)[name]))
        assert "No space left" in text or "full" in text
        filling.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = start(commands(good, disk)[name])
        err = again.communicate(timeout=600)[1]
        assert again.returncode == 0, err[-500:]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_on_the_size_of_files_is_one_line(name, good, tmp_path):
    import resource
    import signal

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself: an error instead of a signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    # files of the compiler's cache are not what is tried here
    process = start(commands(good, tmp_path)[name], cache=False, preexec_fn=limit)
    text = refused_in_one_line(process)
    assert "too large" in text or "No space" in text or "written" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written_to_is_one_line(name, good, tmp_path):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        begun = time.monotonic()
        text = refused_in_one_line(start(commands(good, disk)[name]))
        assert "Read-only" in text or "cannot be written" in text
        assert str(disk) in text
        assert time.monotonic() - begun < 300


@pytest.mark.slow
def test_a_run_that_is_done_is_told_where_nothing_can_be_written(good, tmp_path):
    with mounted(tmp_path / "disk", "size=64m") as disk:
        arguments = commands(good, disk)["finetune"]
        first = start(arguments)
        err = first.communicate(timeout=600)[1]
        assert first.returncode == 0, err[-500:]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        again = start(arguments)
        out, err = again.communicate(timeout=600)
        assert again.returncode == 0, err[-500:]
        assert str(disk / "run") in out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_file_where_a_folder_should_be_is_one_line(name, good, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    text = refused_in_one_line(start(commands(good, tmp_path / "file")[name]))
    assert "file" in text
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sign"), [("finetune", "run/run.json"), ("md", "md_restart.npz")])
def test_of_two_processes_in_one_folder_the_second_is_told(name, sign, good, tmp_path):
    arguments = [str(argument) for argument in commands(good, tmp_path)[name]]
    if name == "md":
        arguments[arguments.index("--steps") + 1] = "20000"
    if name == "finetune":
        arguments[arguments.index("--epochs") + 1] = "200"
    first = start(arguments)
    try:
        while first.poll() is None and not (tmp_path / sign).exists():
            time.sleep(0.005)
        assert first.poll() is None, first.communicate()[1]
        text = refused_in_one_line(start(arguments))
        assert re.search(r"another|running|in use|exists", text), text
        assert first.poll() is None, "the first was disturbed"
    finally:
        first.kill()
        first.communicate()
