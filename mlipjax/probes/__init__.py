"""Probes: what a potential says where an RMSE is silent. Each returns a typed result with a figure and a verdict."""

from mlipjax.probes.diffusion import diffusion
from mlipjax.probes.dimer import dimer_walls
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.eos import equation_of_state
from mlipjax.probes.evaluator import AseEvaluator, Evaluation, Evaluator, NativeEvaluator, load_evaluator
from mlipjax.probes.events import bond_events
from mlipjax.probes.gamma import Modes, gamma_modes
from mlipjax.probes.neb import NEBResult, initial_path, neb
from mlipjax.probes.order import averaged_q6, crystal_order
from mlipjax.probes.phonons import Phonons, phonons
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.sliding import GammaSurface, SlidingProfile, SlidingSettings, gamma_surface, slide
from mlipjax.probes.softening import Softening, rattled, softening
from mlipjax.probes.thermal import Thermal, thermal_properties
from mlipjax.probes.trajectory import Trajectory, read_trajectory
from mlipjax.probes.vacancy import vacancy_formation
from mlipjax.probes.vibrations import vibrational_spectrum

__all__ = [
    "AseEvaluator",
    "Evaluation",
    "Evaluator",
    "GammaSurface",
    "Modes",
    "NEBResult",
    "NativeEvaluator",
    "Phonons",
    "ProbeResult",
    "SlidingProfile",
    "SlidingSettings",
    "Softening",
    "Thermal",
    "Trajectory",
    "averaged_q6",
    "bond_events",
    "crystal_order",
    "diffusion",
    "dimer_walls",
    "elastic_constants",
    "equation_of_state",
    "gamma_modes",
    "gamma_surface",
    "initial_path",
    "load_evaluator",
    "neb",
    "phonons",
    "radial_distribution",
    "rattled",
    "read_trajectory",
    "slide",
    "softening",
    "thermal_properties",
    "vacancy_formation",
    "vibrational_spectrum",
]
