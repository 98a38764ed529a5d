"""One folder per claim: `python -m experiments.NAME`; what they share is in `experiments.lab`."""
