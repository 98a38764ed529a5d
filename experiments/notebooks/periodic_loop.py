# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mlipjax/mlipjax/blob/main/experiments/notebooks/periodic_loop.ipynb)
#
# # Let the model make its own training data
#
# The model drives molecular dynamics, an oracle labels frames along the way, the model is trained on all labels so far
# and drives on: round by round it sees its own mistakes. You need a structure and a way to label it (any ASE
# calculator: CP2K, VASP, GPAW, ...).
#
# As it stands the notebook runs through on its own example: eight water molecules, labelled with GFN1-xTB. That takes
# about three minutes on a laptop; a small example, not a good model.

# %% [markdown]
# ## 1. Install
# On Colab only; elsewhere follow the README.

# %%
import os
import sys

if "google.colab" in sys.modules:
    import subprocess

    # jax with its plugin for what the runtime has: pip would raise jax alone, and all would run on the CPU
    extra = "cuda12," if os.path.exists("/dev/nvidia0") else "tpu," if os.path.exists("/dev/accel0") else ""
    source = f"mlipjax[{extra}report] @ git+https://github.com/mlipjax/mlipjax"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

import jax

print(jax.devices())  # a GPU or TPU of the runtime stands here

# %% [markdown]
# ## 2. Your choice
# `ORACLE`: `"xtb"`, `"teacher:MODEL"`, or `"ase:my_module:make_calculator"`, a function without arguments that returns
# an ASE calculator. For real work take more: 5 rounds of 5 labels, 100 steps or more between two labels.

# %%
from pathlib import Path

MODEL = "universal"
STRUCTURE = None  # "start.extxyz"
ORACLE = "xtb"
OUT = Path("periodic")
ROUNDS, LABELS, STEPS = 3, 4, 20

# %%
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read
from IPython.display import Image, display

import mlipjax
from mlipjax import runtime
from mlipjax.report import figure_png


def show(figure) -> None:
    """Show a figure, whatever the notebook's matplotlib backend."""
    display(Image(figure_png(figure)))


runtime.prepare_process()


def water_box() -> Atoms:
    """Eight water molecules, turned at random, at the density of the liquid."""
    rng, box = np.random.default_rng(0), Atoms(cell=[6.21] * 3, pbc=True)
    for corner in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.euler_rotate(*rng.uniform(0, 360, 3))
        water.translate(3.1 * np.array(corner) + 1.5 - water.get_center_of_mass())
        box += water
    return box


start = water_box() if STRUCTURE is None else read(STRUCTURE)
relaxed = mlipjax.relax(MODEL, start, fmax=0.3)
print(f"{len(start)} atoms, energy changed by {relaxed.energy_change:.2f} eV")

# %% [markdown]
# ## 3. The loop
# Every label is committed to `labels.db` before it is used and is never computed twice: stop this cell at any moment
# and run it again, and it goes on.

# %%
from mlipjax.settings import PeriodicSettings

settings = PeriodicSettings(
    rounds=ROUNDS, labels_per_round=LABELS, steps=STEPS, train_steps=30, learning_rate=1e-3, temperature=300.0
)
result = mlipjax.periodic(MODEL, relaxed.atoms, oracle=ORACLE, out=OUT, settings=settings)
for row in result.report["rounds"]:
    force = row["force_rmse_meV_per_A"]
    print(f"round {row['round']}: {row['labels_before']} labels seen, force RMSE {force:.0f} meV/Å on its own frames")

# %% [markdown]
# Each row is an honest test: the frames were sampled by this very model, and nothing had been trained on them yet.

# %%
from mlipjax.report.periodic import errors_figure

show(errors_figure(result.report))

# %% [markdown]
# ## 4. Before and after
# On all labelled frames: those that the last model was trained on too, so this shows what was learned.

# %%
from mlipjax.report import parity

frames = mlipjax.read(OUT / "frames.extxyz")


def forces(model) -> np.ndarray:
    """All force components of the frames."""
    return np.concatenate([atoms.get_forces() for atoms in mlipjax.predict(model, frames)])


reference = np.concatenate([np.asarray(labels.forces) for labels in frames.labels])
found = {name: forces(model) for name, model in ((MODEL, MODEL), ("after", result.model))}
shown = {name: values.ravel() for name, values in found.items()}
show(parity(reference.ravel(), shown, quantity="force component", unit="eV/Å"))
for name, values in found.items():
    print(f"{name}: force RMSE {1000 * np.sqrt(np.mean((values - reference) ** 2)):.1f} meV/Å on {len(frames)} frames")

# %% [markdown]
# ## 5. Look at the frames
# Each point is a frame; choose one and turn it. The viewer is part of the notebook and works offline (chemiscope, in
# the extra `report`); without it the frames with the largest errors are drawn.

# %%
from mlipjax.report.structures import pictures

atoms = [system.to_ase() for system in frames.systems]
errors = np.split(1000 * np.linalg.norm(found["after"] - reference, axis=1), np.cumsum([len(a) for a in atoms])[:-1])
rms = np.array([np.sqrt(np.mean(error**2)) for error in errors])
worst = np.argsort(-rms)[:4]
show(
    pictures(
        [atoms[i] for i in worst],
        [f"frame {i}: {rms[i]:.0f} meV/Å" for i in worst],
        values=[errors[i] for i in worst],
        unit="force error (meV/Å)",
    )
)

# %%
try:
    import chemiscope
except ImportError:
    print('a viewer comes with pip install "mlipjax[report]"')
else:
    numbers = {"frame": np.arange(len(atoms)), "force error (meV/Å)": rms}
    display(chemiscope.show(atoms, properties=numbers))

# %% [markdown]
# ## 6. Next
# The same from the command line, with your own calculator in `my_dft.py`:
#
# ```
# mlipjax periodic --model universal --structure start.extxyz --oracle ase:my_dft:pbe --out periodic
# mlipjax simulate --model periodic/model --structure start.extxyz --steps 100000 --out md
# ```
#
# `--on-alarm label` has charts read the frames on the way, and labels at once where they leave what the model knows.
