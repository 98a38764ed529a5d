"""Labels by Dask, submitit, executorlib, Slurm: workers killed under way, frames that stall, runs that are killed."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from recorded_calculators import LOG, PAUSE, logged
from test_labeller import FACTORY, HERE, ROOT, pair

from mlipjax.oracles import AseOracle, Labeller, LabelStore, label_key, make_executor
from mlipjax.system import Labels

pytestmark = pytest.mark.slow

FRAMES = [pair(distance=3.5 + 0.1 * k) for k in range(6)]
ORACLE = AseOracle(FACTORY)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder where the recorded calculator logs its calls, here and in workers, which find what they need."""
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv(LOG, str(log))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{HERE}")
    return log


@pytest.fixture
def cluster(folder):
    """A Dask cluster of two processes that gives up a task as soon as its worker dies."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster


def wait_for(happened, seconds=60):
    for _ in range(int(50 * seconds)):
        if happened():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen")


def test_dask_worker_killed_under_way_and_a_stalled_frame(cluster, folder, tmp_path, monkeypatch):
    """Both workers are killed while they label innocent frames; lithium stalls, beryllium kills its worker."""
    path = tmp_path / "labels.db"
    frames = [*FRAMES[:3], pair(3), pair(4), *FRAMES[3:]]
    cluster_workers = make_executor(f"dask:{cluster.scheduler_address},timeout=4")
    client = cluster_workers.start()._client
    client.run(lambda: os.environ.update({PAUSE: "1.5"}))
    with Labeller(ORACLE, path, executor=cluster_workers) as labeller:
        labeller.start(frames)
        wait_for(lambda: logged(folder, "start18") == 2)
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        results = labeller.label(frames)
    assert [type(result) is Labels for result in results] == [True] * 3 + [False] * 2 + [True] * 3
    assert results[3].reason == "timeout after 4 s"
    assert "KilledWorker" in results[4].reason
    store = LabelStore(path)
    assert not any(store.failures(label_key(frame, ORACLE.identity)) for frame in FRAMES)
    assert len(store) == 6


def test_a_dask_scheduler_that_does_not_answer_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        make_executor("dask:tcp://127.0.0.1:9")


def test_submitit_jobs_on_this_machine(folder, tmp_path):
    pytest.importorskip("submitit")
    frames = [*FRAMES[:2], pair(2), pair(3), pair(4)]
    spec = f"submitit:{tmp_path / 'jobs'},cluster=local,jobs=3,timeout=3,scratch={tmp_path / 'scratch'}"
    with Labeller(ORACLE, tmp_path / "labels.db", executor=spec, retries=0) as labeller:
        good, other, refused, stalled, dead = labeller.label(frames)
    assert isinstance(good, Labels)
    assert isinstance(other, Labels)
    assert refused.reason == "RuntimeError: no convergence"
    assert stalled.reason == "timeout after 3 s"
    assert "worker process died" in dead.reason
    assert (tmp_path / "scratch").is_dir()
    assert not list((tmp_path / "jobs/labels").iterdir())


def test_a_job_that_is_preempted_charges_nobody(folder, tmp_path, monkeypatch):
    """SIGUSR2 is what submitit has Slurm send to a job that is about to be taken away."""
    pytest.importorskip("submitit")
    monkeypatch.setenv(PAUSE, "3")
    store = LabelStore(tmp_path / "labels.db")
    spec = f"submitit:{tmp_path / 'jobs'},cluster=local"
    with Labeller(ORACLE, store, executor=spec, retries=0) as labeller:
        labeller.start(FRAMES[:1])
        wait_for(lambda: logged(folder, "start18") == 1)
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            words = command.read_bytes().split(b"\0") if command.exists() else []
            if b"submitit.core._submit" in words and str(tmp_path / "jobs").encode() in words:
                os.kill(int(command.parent.name), signal.SIGUSR2)
        (label,) = labeller.label(FRAMES[:1])
    assert isinstance(label, Labels)
    assert logged(folder, "start18") == 2
    assert store.failures(label_key(FRAMES[0], ORACLE.identity)) is None


RUN = f"""
    import sys
    from mlipjax.oracles import AseOracle, Labeller
    from test_labeller import pair
    if __name__ == "__main__":
        with Labeller(AseOracle("{FACTORY}"), sys.argv[1], executor=sys.argv[2]) as labeller:
            labeller.label([pair(distance=3.5 + 0.1 * k) for k in range(4)], lambda n, *_: print(n, flush=True))
        print("computed", labeller.counts.computed)
"""


def kill_and_rerun(spec, folder, tmp_path):
    """Kill -9 a run after its first label, and run it again; how many calculations were begun in all."""
    script, path = tmp_path / "script.py", tmp_path / "labels.db"
    script.write_text(textwrap.dedent(RUN))
    command = [sys.executable, str(script), str(path), spec]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    done = len(LabelStore(path))
    assert 1 <= done < 4
    rerun = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"computed {4 - done}" in rerun.stdout
    assert len(LabelStore(path)) == 4
    return logged(folder, "start18")


def test_jobs_go_on_without_the_run_that_submitted_them(folder, tmp_path, monkeypatch):
    """After kill -9 the next run waits for the jobs of the one before: nothing is computed twice."""
    pytest.importorskip("submitit")
    monkeypatch.setenv(PAUSE, "2")
    assert kill_and_rerun(f"submitit:{tmp_path / 'jobs'},cluster=local,jobs=2", folder, tmp_path) == 4


def test_executorlib(folder, tmp_path):
    pytest.importorskip("executorlib")
    frames = [*FRAMES[:3], pair(3), pair(4)]
    store = LabelStore(tmp_path / "labels.db")
    with Labeller(ORACLE, store, executor="executorlib:2,timeout=3", retries=0) as labeller:
        *good, stalled, dead = labeller.label(frames)
    assert all(isinstance(label, Labels) for label in good)
    assert stalled.reason == "timeout after 3 s"
    assert "worker process died" in dead.reason
    assert "Executorlib" in dead.reason
    assert not any(store.failures(label_key(frame, ORACLE.identity)) for frame in FRAMES)


SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of one node on loopback, with sockets and state of its own."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "mungekey")
    paths = {program: shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") for program in programs}
    if os.getuid() or not all(paths.values()):
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    host, spool = os.uname().nodename.split(".")[0], tmp_path / "slurm"
    for name in ("state", "spool", "munge"):
        (spool / name).mkdir(parents=True)
    socket, key = spool / "munge/socket", spool / "munge/key"
    conf = spool / "slurm.conf"
    text = SLURM.format(host=host, folder=spool, cpus=os.cpu_count())
    conf.write_text(text + f"AuthInfo=socket={socket}\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    subprocess.run([paths["mungekey"], "--create", f"--keyfile={key}"], check=True)
    munge = [paths["munged"], "--foreground", "--force", f"--socket={socket}", f"--key-file={key}"]
    munge += [f"--{name}-file={spool}/munge/{name}" for name in ("log", "pid", "seed")]
    daemons = []

    def begin(*command):
        log = (spool / f"{Path(command[0]).name}.log").open("w")
        daemons.append(subprocess.Popen(command, stdout=log, stderr=log))

    try:
        begin(*munge)
        wait_for(socket.exists)
        begin(paths["slurmctld"], "-D", "-f", str(conf))
        begin(paths["slurmd"], "-D", "-f", str(conf), "-N", host)
        wait_for(lambda: "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout)
        yield spool
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def test_labels_through_slurm(slurm, folder, tmp_path, monkeypatch):
    """Labels, a frame that stalls, one that kills its job, a job that is cancelled and put again; kill -9 and rerun."""
    pytest.importorskip("submitit")
    monkeypatch.setenv(PAUSE, "2")
    spec = f"submitit:{tmp_path / 'jobs'},partition=short,cpus=1,minutes=5"
    assert kill_and_rerun(spec, folder, tmp_path) == 4
    frames, store = [*FRAMES, pair(3), pair(4)], LabelStore(tmp_path / "labels.db")
    begun = logged(folder, "start18")
    with Labeller(ORACLE, store, executor=f"{spec},timeout=4", retries=0) as labeller:
        labeller.start(frames)
        wait_for(lambda: logged(folder, "start18") > begun)
        queue = subprocess.run(["squeue", "-h", "-o", "%A", "-t", "R"], capture_output=True, text=True).stdout
        subprocess.run(["scancel", queue.split()[0]], check=True)
        *good, stalled, dead = labeller.label(frames)
    assert all(isinstance(label, Labels) for label in good)
    assert stalled.reason == "timeout after 4 s"
    assert "worker process died" in dead.reason
    assert not any(store.failures(label_key(frame, ORACLE.identity)) for frame in FRAMES)
    with pytest.raises(Exception, match=r"cannot be submitted.*partition"):
        Labeller(ORACLE, executor=f"submitit:{tmp_path / 'jobs'},partition=absent").label([pair(distance=9.0)])
