"""Probes: what a potential says where an RMSE is silent. Each returns a typed result with a figure and a verdict."""

from mlipjax.probes.diffusion import Diffusion, Trust, diffusion
from mlipjax.probes.dimer import DimerWalls, dimer_walls
from mlipjax.probes.elastic import ElasticConstants, elastic_constants
from mlipjax.probes.eos import EquationOfState, equation_of_state
from mlipjax.probes.evaluator import AseEvaluator, Evaluation, Evaluator, NativeEvaluator, load_evaluator
from mlipjax.probes.events import EventCounts, bond_events
from mlipjax.probes.neb import NEBResult, initial_path, neb
from mlipjax.probes.order import CrystalOrder, averaged_q6, crystal_order
from mlipjax.probes.phonons import Modes, Phonons, gamma_modes, phonons
from mlipjax.probes.rdf import RadialDistribution, radial_distribution
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.sliding import GammaSurface, SlidingProfile, SlidingSettings, gamma_surface, slide
from mlipjax.probes.softening import Softening, rattled, softening
from mlipjax.probes.trajectory import Trajectory, read_trajectory
from mlipjax.probes.vacancy import Vacancies, vacancy_formation
from mlipjax.probes.vibrations import VibrationalSpectrum, vibrational_spectrum

__all__ = [
    "AseEvaluator",
    "CrystalOrder",
    "Diffusion",
    "DimerWalls",
    "ElasticConstants",
    "EquationOfState",
    "Evaluation",
    "Evaluator",
    "EventCounts",
    "GammaSurface",
    "Modes",
    "NEBResult",
    "NativeEvaluator",
    "Phonons",
    "ProbeResult",
    "RadialDistribution",
    "SlidingProfile",
    "SlidingSettings",
    "Softening",
    "Trajectory",
    "Trust",
    "Vacancies",
    "VibrationalSpectrum",
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
    "vacancy_formation",
    "vibrational_spectrum",
]
