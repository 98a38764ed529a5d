"""More than one device: JAX is told before it starts that this machine has four."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mlipjax.devices import SHARE, device_mesh, over_devices, put

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
