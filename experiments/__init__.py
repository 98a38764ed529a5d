"""One folder per claim: `python -m experiments.NAME`; what they share is in `experiments.lab`."""

import os

# before anything imports JAX, which asks for more: see mlipjax.cli.main.quiet_xla
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
