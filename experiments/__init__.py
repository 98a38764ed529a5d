"""One module per claim: `python -m experiments.NAME`."""
