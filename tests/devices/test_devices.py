"""More than one device: JAX is told before it starts that this machine has four."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from labelled_files import labelled, model, rock_salts

from mlipjax.defaults import BYTES_PER_SLOT, MAX_SLOTS
from mlipjax.devices import SHARE, bring_back, default_slots, device_mesh, mesh_of_parts, over_devices, put
from mlipjax.train import LabelledBatches, batches

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
def test_four_devices_compute_what_one_does():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "four_devices.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=HERE.parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.skipif(jax.device_count() > 1, reason="this process has several devices")
def test_one_device_changes_nothing():
    def double(x):
        return 2 * x

    assert device_mesh(8) is None
    assert over_devices(double, None, SHARE, SHARE) is double
    x = object()
    assert put(x, None, SHARE) is x
    assert bring_back(x, None) is x
    assert mesh_of_parts(8) is None


class Accelerator:
    """As much of a device as is asked for its memory."""

    platform = "gpu"

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_as_many_slots_as_the_memory_of_the_device_holds():
    gigabytes = 10**9
    slots = [default_slots(device=Accelerator({"bytes_limit": size * gigabytes})) for size in (12, 60, 105)]
    assert slots == [60_000, 300_000, 525_000]
    assert slots[0] * BYTES_PER_SLOT <= 0.75 * 12 * gigabytes
    assert default_slots("float64", Accelerator({"bytes_limit": 60 * gigabytes})) == 150_000
    assert default_slots(device=Accelerator({"bytes_limit": 1})) == 1
    # some say nothing of their memory
    assert default_slots(device=Accelerator(None)) == default_slots(device=Accelerator({})) == MAX_SLOTS


def test_on_a_cpu_the_number_of_slots_is_a_constant():
    assert default_slots(device=jax.devices("cpu")[0]) == MAX_SLOTS == 65_536
    if jax.default_backend() == "cpu":
        assert default_slots() == MAX_SLOTS


def test_batches_follow_the_memory_unless_told_otherwise(monkeypatch):
    data = labelled(rock_salts(8))
    potential = model().potential
    monkeypatch.setattr(batches, "default_slots", lambda dtype: 1)
    assert LabelledBatches.create(potential, data, 4).accumulate == 4
    assert LabelledBatches.create(potential, data, 4, max_slots=10**6).accumulate == 1
