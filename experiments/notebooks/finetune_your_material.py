# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mlipjax/mlipjax/blob/main/experiments/notebooks/finetune_your_material.ipynb)
#
# # Fine-tune a universal potential for your material
#
# You need a model (one comes with the package) and frames of your material with energies and forces (extended xyz,
# any code ASE reads). You get a fine-tuned model, a verdict on it, and molecular dynamics that is watched by charts
# which say when the model leaves what it knows.
#
# As it stands the notebook runs through on its own example: eight water molecules, labelled with GFN1-xTB. That takes
# about two minutes on a laptop; a small example, not a good model.

# %% [markdown]
# ## 1. Install
# On Colab only; elsewhere follow the README.

# %%
import os
import sys

if "google.colab" in sys.modules:
    import subprocess

    # jax with its plugin for what the runtime has: pip would raise jax alone, and all would run on the CPU
    extra = "[cuda12]" if os.path.exists("/dev/nvidia0") else "[tpu]" if os.path.exists("/dev/accel0") else ""
    source = f"mlipjax{extra} @ git+https://github.com/mlipjax/mlipjax"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

import jax

print(jax.devices())  # a GPU or TPU of the runtime stands here

# %% [markdown]
# ## 2. Your choice
# `MODEL`: `"universal"` (embedded, small), a published one such as `"nequix-mp-1"` (89 elements, downloaded), a `.nqx`
# file or a folder. `FRAMES`: your labelled frames, or `None` for the example.

# %%
from pathlib import Path

MODEL = "universal"
FRAMES = None  # "my_frames.extxyz"
OUT = Path("finetuned")
STRATEGY = "naive"  # for one system; "pseudo-replay" keeps more of what the model knew
EPOCHS = 8
MD_STEPS = 300  # of each run the charts are fitted to; 20 000 or more for real

# %%
import jax
import numpy as np
from ase import Atoms
from ase.build import molecule
from IPython.display import Image, display

import mlipjax
from mlipjax import runtime
from mlipjax.data import Dataset, Example, write_dataset
from mlipjax.report import figure_png


def show(figure) -> None:
    """Show a figure, whatever the notebook's matplotlib backend."""
    display(Image(figure_png(figure)))


runtime.prepare_process()
potential, _ = model = mlipjax.load(MODEL)
print(f"{MODEL}: {len(potential.species)} elements, cutoff {potential.cutoff} Å")

# %% [markdown]
# ## 3. Labelled frames
# The example rattles a box of water and labels it, as you would with your own DFT code (`--oracle ase:module:factory`
# on the command line). Labels are total energies in eV, forces in eV/Å, stress in eV/Å³ (tension positive).


# %%
def water_box() -> Atoms:
    """Eight water molecules, turned at random, at the density of the liquid."""
    rng, box = np.random.default_rng(0), Atoms(cell=[6.21] * 3, pbc=True)
    for corner in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.euler_rotate(*rng.uniform(0, 360, 3))
        water.translate(3.1 * np.array(corner) + 1.5 - water.get_center_of_mass())
        box += water
    return box


def example_frames(n: int) -> Dataset:
    """Frames of the box, rattled, with GFN1-xTB labels."""
    from mlipjax.oracles import make_oracle

    oracle, examples = make_oracle("xtb"), []
    for seed in range(n):
        atoms = water_box()
        atoms.rattle(0.06, seed=seed)
        system = mlipjax.System.from_ase(atoms)
        examples.append(Example(system, oracle.label(system), {"run": f"rattled {seed}"}))
    return Dataset.from_examples(examples)


if FRAMES is None:
    write_dataset("example.extxyz", example_frames(16))
data = mlipjax.read("example.extxyz" if FRAMES is None else FRAMES)
print(f"{len(data)} frames, elements {data.elements}, labels {data.count_labels()}")

# %% [markdown]
# ## 4. Doctor
# Wrong units, wrong sign of the stress, missing labels, unknown elements, isolated-atom energies of another code,
# leaks between the splits: each finding names the frame and the remedy. Fine-tuning makes the same checks and refuses
# to start on a fatal finding.

# %%
from mlipjax.doctor import examine

examination = examine(model, {"frames": data}, e0s="estimate")
for finding in examination.findings:
    print(f"{finding.severity}: {finding}")
print(f"{len(examination.findings)} findings, {len(examination.fatal)} of them fatal")

# %% [markdown]
# ## 5. Fine-tune
# `e0s="estimate"` shifts isolated-atom energies by least squares, so that the energy zeros of your code and of the
# model agree. The same call again resumes a run that was stopped.

# %%
options = {"strategy": STRATEGY, "e0s": "estimate", "epochs": EPOCHS, "anchor": "none"}
tuned = mlipjax.finetune(model, data, out=OUT / "run", **options)
before, after = tuned.report["before"], tuned.report["after"]
for key in ("force_mae_meV_per_A", "energy_std_meV_per_atom"):
    print(f"{key}: {before[key]:.1f} -> {after[key]:.1f} on {tuned.report['n_valid']} held-out frames")

# %%
import json

from mlipjax.report import training_history

lines = [json.loads(line) for line in (OUT / "run" / "metrics.jsonl").read_text().splitlines()]
history = {key: [line[key] for line in lines] for key in lines[0]}
show(
    training_history(
        history["epoch"],
        {"train": history["train_loss"], "validation": history["valid_loss"]},
        {"force RMSE (meV/Å)": history["force_rmse_meV_per_A"]},
        best=tuned.report["best_epoch"],
    )
)

# %% [markdown]
# ## 6. Parity
# Before and after, on all frames given: training error included, so this figure shows what was learned, not how well
# the model does on frames it has not seen (the held-out numbers above do).

# %%
from mlipjax.report import parity


def forces(model) -> np.ndarray:
    """All force components of the frames."""
    return np.concatenate([atoms.get_forces().ravel() for atoms in mlipjax.predict(model, data)])


reference = np.concatenate([np.asarray(labels.forces).ravel() for labels in data.labels])
found = {MODEL: forces(model), "fine-tuned": forces(tuned.model)}
show(parity(reference, found, quantity="force component", unit="eV/Å"))

# %% [markdown]
# ## 7. Save and load
# JSON and safetensors, no pickle. The folder is a `--model` for every `mlipjax` command, and an ASE calculator.

# %%
mlipjax.save(OUT / "model", tuned.potential, tuned.params)
potential, params = model = mlipjax.load(OUT / "model")
atoms = data.systems[0].to_ase()
atoms.calc = mlipjax.Calculator(potential, params)
print(f"energy {atoms.get_potential_energy():.4f} eV, largest force {np.abs(atoms.get_forces()).max():.2f} eV/Å")

# %% [markdown]
# ## 8. Monitor
# Charts of the model's own features, fitted to two runs of molecular dynamics and calibrated on the second: where the
# model is at home. Short runs guarantee less than the level asked for; the printout says what they do guarantee.

# %%
from mlipjax import md, monitoring

start = data.systems[0]
ensemble = md.make_ensemble("nvt", timestep_fs=md.default_timestep(start.atomic_numbers), temperature_K=300.0)


def scaled(system: mlipjax.System, factor: float) -> mlipjax.System:
    """The system with all lengths times ``factor``."""
    return mlipjax.System(system.positions * factor, system.atomic_numbers, system.cell * factor, system.pbc)


# one size of neighbour tables for all runs below, so that the program is compiled once
same = {
    "n_replicas": 2,
    "frame_every": 10,
    "chunk_steps": 10,
    "spec": md.VerletSpec.for_systems([start, scaled(start, 0.96)], potential.cutoff),
}
runs = OUT / "runs.extxyz"
if not runs.exists():
    md.run(model, md.Start(start), ensemble, MD_STEPS, key=jax.random.key(1), trajectory=runs, **same)
home = mlipjax.read(runs)
charts = monitoring.fit_monitor(
    monitoring.frame_features(model, home.systems),
    [info["run"] for info in home.infos],
    level=0.05,
    model=monitoring.params_fingerprint(params),
)
monitoring.save_monitor(OUT / "monitoring.npz", charts)
limit = charts.frame_calibration["combined"]
print(f"limit {limit.limit:.2f}; {limit.n_used} independent frames guarantee {limit.guaranteed:.2g} false alarms")

# %% [markdown]
# ## 9. Molecular dynamics, watched
# The same structure compressed step by step: at some point the charts should say that this is not where the model was
# trained.

# %%
from mlipjax.report.monitor import control_charts

watched = []
for factor in (1.0, 0.985, 0.97):
    watch = monitoring.Watch(charts, model, every=10)
    begin = md.Start(scaled(start, factor))
    md.run(model, begin, ensemble, MD_STEPS // 3, key=jax.random.key(2), on_chunk=watch, **same)
    k = monitoring.FRAME_INDICES.index("combined")
    values, alarms = (np.array(series)[:, 0, k] for series in (watch.frame, watch.alarm))
    watched.append((f"cell x {factor:g}", values))
    print(f"cell x {factor:g}: {alarms.sum()} of {len(alarms)} readings out of control")

groups = [name for name, values in watched for _ in values]
times = np.concatenate(
    [np.arange(1, len(values) + 1) * 10 * float(ensemble.timestep_fs) / 1000 for _, values in watched]
)
combined = np.concatenate([values for _, values in watched])
show(
    control_charts(
        {"combined index": combined},
        {"combined index": float(charts.charts.frame_limits[k])},
        runs=groups,
        x=times,
        x_label="time (ps)",
    )
)

# %% [markdown]
# ## 10. Next
# The same from the command line:
#
# ```
# mlipjax doctor --model universal --train my_frames.extxyz --e0s estimate
# mlipjax finetune --model universal --train my_frames.extxyz --e0s estimate --out finetuned
# mlipjax simulate --model finetuned --structure start.xyz --steps 100000 --out md --monitor monitoring.npz
# ```
#
# A frame on which the charts raise an alarm is the frame to label next; `python -m experiments.periodic` does this in
# a loop.
