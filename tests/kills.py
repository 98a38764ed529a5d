"""Kill a program, or fail its calls, at every change that it makes to the files below a folder.

A change is a call of the C library that writes, truncates, syncs, creates, renames or removes something below the
folder; a small library, compiled on the spot and loaded before all others, counts them, whoever makes them: Python,
SQLite, orbax. At the change with a chosen number the process is killed before it happens, or that call and all further
writes fail (a full disk). Everything else runs as it is.

Example:
    results = at_every_change(
        folder,
        setup="from mlipjax.oracles import LabelStore",
        write="LabelStore(FOLDER / 'labels.db')",
        check="assert len(LabelStore(FOLDER / 'labels.db')) == 0",
    )
    assert failures(results) == []

The three texts are Python; ``FOLDER`` is a ``Path``. ``setup`` runs once, in a process from which every ``write`` and
``check`` is forked, so it must not start threads (no JAX computation). ``together=True`` is for what computes: setup,
one ``write`` and all checks run in one process, so that everything is compiled once. A kill leaves the folder as it is
at that moment, so a copy of it, made before every change, stands for the kill; equal copies are checked once.
"""

import ctypes
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char below[4096], copies[4096];
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static long count, kill_at, fail_at;
static int failure;

void kills_arm(const char *folder, long kill, long fail, int error, const char *copy_to) {
    count = 0; kill_at = kill; fail_at = fail; failure = error;
    snprintf(copies, sizeof copies, "%s", copy_to);
    snprintf(below, sizeof below, "%s", folder);
}
long kills_count(void) { return count; }

static int inside(const char *path) {
    size_t n = strlen(below);
    return n && path && !strncmp(path, below, n) && (path[n] == '/' || !path[n]);
}
/* The file of a descriptor, or of a path relative to a folder's descriptor. */
static int concerns(int fd, const char *path) {
    char link[64], name[4096];
    ssize_t n;
    if (!*below) return 0;
    if (path && *path == '/') return inside(path);
    snprintf(link, sizeof link, path && fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    n = readlink(link, name, sizeof name - 1);
    if (n < 0) return 0;
    name[n] = 0;
    return inside(name);
}
/* Keep what a kill would leave here. Other threads wait before their next change. */
static void copy(long number) {
    char target[4200];
    char *command[] = {"cp", "-a", below, target, 0};
    pid_t child;
    int status = -1;
    snprintf(target, sizeof target, "%s/%ld", copies, number);
    if (posix_spawnp(&child, "cp", 0, 0, command, environ)) abort();
    while (waitpid(child, &status, 0) < 0 && errno == EINTR);
}
/* Count a change; return whether it is to fail. A full disk stays full: later writes fail too, removals do not. */
static int change(int concerned, int grows) {
    if (!concerned) return 0;
    pthread_mutex_lock(&one_at_a_time);
    long number = ++count;
    if (*copies) copy(number);
    pthread_mutex_unlock(&one_at_a_time);
    if (kill_at && number == kill_at) raise(SIGKILL);
    if (fail_at && (number == fail_at || (number > fail_at && grows))) { errno = failure; return 1; }
    return 0;
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write); return change(concerns(fd, 0), 1) ? -1 : real(fd, data, n); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev); return change(concerns(fd, 0), 1) ? -1 : real(fd, parts, n); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite); return change(concerns(fd, 0), 1) ? -1 : real(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite64); return change(concerns(fd, 0), 1) ? -1 : real(fd, data, n, at); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); return change(concerns(fd, 0), 0) ? -1 : real(fd, n); }
int ftruncate64(int fd, off_t n) { REAL(ftruncate64); return change(concerns(fd, 0), 0) ? -1 : real(fd, n); }
int fsync(int fd) { REAL(fsync); return change(concerns(fd, 0), 1) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return change(concerns(fd, 0), 1) ? -1 : real(fd); }
int rename(const char *a, const char *b) {
    REAL(rename); return change(concerns(AT_FDCWD, b), 0) ? -1 : real(a, b); }
int renameat(int d, const char *a, int e, const char *b) {
    REAL(renameat); return change(concerns(e, b), 0) ? -1 : real(d, a, e, b); }
int unlink(const char *a) { REAL(unlink); return change(concerns(AT_FDCWD, a), 0) ? -1 : real(a); }
int unlinkat(int d, const char *a, int f) { REAL(unlinkat); return change(concerns(d, a), 0) ? -1 : real(d, a, f); }
int rmdir(const char *a) { REAL(rmdir); return change(concerns(AT_FDCWD, a), 0) ? -1 : real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); return change(concerns(AT_FDCWD, a), 1) ? -1 : real(a, m); }
int mkdirat(int d, const char *a, mode_t m) { REAL(mkdirat); return change(concerns(d, a), 1) ? -1 : real(d, a, m); }

#define MAKES(flags) ((flags) & (O_CREAT | O_TRUNC))
#define OPENS(name) \
int name(const char *path, int flags, ...) { \
    va_list rest; mode_t mode = 0; REAL(name); \
    if (flags & (O_CREAT | O_TMPFILE)) { va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    return change(MAKES(flags) && concerns(AT_FDCWD, path), 1) ? -1 : real(path, flags, mode); }
OPENS(open)
OPENS(open64)
#define OPENSAT(name) \
int name(int folder, const char *path, int flags, ...) { \
    va_list rest; mode_t mode = 0; REAL(name); \
    if (flags & (O_CREAT | O_TMPFILE)) { va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    return change(MAKES(flags) && concerns(folder, path), 1) ? -1 : real(folder, path, flags, mode); }
OPENSAT(openat)
OPENSAT(openat64)
"""

RUNNER = r"""
import ctypes, hashlib, json, os, shutil, sys, traceback
from pathlib import Path

job = json.loads(sys.stdin.read())
results = os.fdopen(os.dup(1), "w")  # what the code prints is not among them
os.dup2(2, 1)
FOLDER = Path(job["folder"])
counter = ctypes.CDLL(None)
counter.kills_count.restype = ctypes.c_long

def armed(kill=0, fail=0, error=0, copies=""):
    counter.kills_arm(str(FOLDER).encode(), ctypes.c_long(kill), ctypes.c_long(fail), error, copies.encode())

def disarmed():
    counter.kills_arm(b"", ctypes.c_long(0), ctypes.c_long(0), 0, b"")

def fresh(start=job["start"]):
    shutil.rmtree(FOLDER, ignore_errors=True)
    if start is None:
        FOLDER.mkdir(parents=True)
    else:
        shutil.copytree(start, FOLDER)

def tell(*result):
    print(json.dumps(result), file=results, flush=True)

def here(code, **arm):
    '''Status, number of changes and last line of some code in this process.'''
    status, last = 0, ""
    try:
        armed(**arm)
        exec(compile(code, "<code>", "exec"), {**globals(), **prepared})
    except BaseException as error:
        status, last = 1, f"{type(error).__name__}: {error}"
        if os.environ.get("KILLS_TRACEBACK"):
            traceback.print_exc()
    changes = counter.kills_count()
    disarmed()
    return status, changes, last

def state(folder):
    '''Digest of everything below a folder.'''
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.relative_to(folder)} {path.is_file()} {len(content)} ".encode() + content)
    return digest.hexdigest()

def killed_together():
    '''One run, copied before every change; then the check of every copy that is not like another.'''
    copies = FOLDER.with_name(FOLDER.name + "-copies")
    copies.mkdir()
    status, changes, last = here(job["write"], copies=str(copies))
    if status:
        sys.exit(f"the code fails by itself: {last}")
    known = {}
    for point in range(1, changes + 1):
        key = state(copies / str(point))
        if key not in known:
            fresh(copies / str(point))
            known[key] = here(job["check"])
        tell(point, -9, "", known[key][0], known[key][2])
        shutil.rmtree(copies / str(point))

def forked(code, **arm):
    '''Exit status, number of changes and last line of a copy of this process that runs some code.'''
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status, changes, last = here(code, **arm)
        os.write(writing, json.dumps([changes, last]).encode())
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, *(json.loads(text) if text else [None, ""])

prepared = {"FOLDER": FOLDER}
exec(compile(job["setup"], "<setup>", "exec"), prepared)
run = here if job["together"] else forked
fresh()
if job["together"] and not job["error"]:
    killed_together()
    sys.exit(0)
if job["points"] is None:
    status, changes, last = run(job["write"])
    if status:
        sys.exit(f"the code fails by itself: {last}")
    job["points"] = list(range(1, changes + 1))[:: job["every"]]
for point in job["points"]:
    fresh()
    arm = {"fail": point, "error": job["error"]} if job["error"] else {"kill": point}
    written = run(job["write"], **arm)
    checked = run(job["check"])
    tell(point, written[0], written[2], checked[0], checked[2])
"""


@dataclass(frozen=True)
class Result:
    """Result of a kill, or a failing call, at one change.

    Attributes:
        point: number of the change, from 1.
        status: of the writing process: -9 killed, 0 done, 1 an exception.
        error: that exception, in a line.
        checked: status of the check afterwards, 0 if it is satisfied.
        complaint: its exception.
    """

    point: int
    status: int
    error: str
    checked: int
    complaint: str


def at_every_change(
    folder, *, setup, write, check, start=None, error=0, points=None, every=1, together=False, timeout=300.0
):
    """Run ``write`` once for every change that it makes, ended there; then ``check``, undisturbed.

    Args:
        folder: made anew for every run.
        setup, write, check: Python, see the module.
        start: folder whose copy each run starts from; by default an empty one.
        error: ``errno`` with which the call fails; 0 kills the process instead.
        points: numbers of the changes; by default all of them.
        every: of all changes only every so-manieth.
        together: whether everything runs in one process, for code that computes.
        timeout: seconds for everything together.

    Returns:
        A ``Result`` for every point.
    """
    folder = Path(os.path.realpath(folder))
    job = {"folder": str(folder), "start": start and str(start), "setup": setup, "write": write, "check": check}
    job |= {"error": error, "points": points, "every": every, "together": together}
    environment = {**os.environ, "LD_PRELOAD": str(library())}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(job),
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [Result(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def failures(results):
    """The points after which the check was not satisfied; there must have been some points."""
    assert results, "nothing was changed"
    return [result for result in results if result.checked]


@functools.cache
def library():
    """Path of the compiled library; without a C compiler, or away from Linux, the test is skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("counting changes of files needs Linux and a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    (folder / "kills.c").write_text(SOURCE)
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        str(folder / "kills.so"),
        str(folder / "kills.c"),
        "-ldl",
        "-lpthread",
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"the C compiler fails: {built.stderr[-300:]}")
    ctypes.CDLL(str(folder / "kills.so"))
    return folder / "kills.so"
