"""ASE calculator around a potential."""

from __future__ import annotations

import copy
import itertools
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes

from mlipjax import tree
from mlipjax.defaults import Precision
from mlipjax.dispersion import D3BJ, add_dispersion, parse_dispersion
from mlipjax.files import digest
from mlipjax.graph import GraphBatch, batch_graphs
from mlipjax.graph.follow import Follower
from mlipjax.hessian import second_derivatives
from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.models.heads import head_index
from mlipjax.potential import Potential, Prediction
from mlipjax.system import System, full_to_voigt
from mlipjax.typing import Params
from mlipjax.uncertainty import Estimator, spread
from mlipjax.uncertainty.estimators import cast

if TYPE_CHECKING:
    from ase import Atoms


class Calculator(AseCalculator):
    """Energy, forces and stress of a potential for ASE: any cell, any periodicity, molecules without a cell.

    Structures are padded, and share compiled programs: structures of many sizes need a handful, and a size that
    comes back gets one that fits closely (``n_compilations`` counts them).

    Args:
        potential: what ``mlipjax.load`` returned.
        params: its parameters.
        dtype: ``"float64"`` (default: relaxations, phonons and finite differences need it) or ``"float32"``
            (about twice as fast). Float64 is switched on for the calculator's own calls only.
        head: name of the energy head, the first by default.
        task: former name of ``head``.
        uncertainty: error bars of the model and head (``uncertainty.load_uncertainty``). ``results`` then also hold
            standard deviations: ``energy_std`` (eV), ``energies_std`` (n,) and ``forces_std`` (n, 3), at the price of
            one backward pass per feature of the last layer, or per member of an ensemble.
        dispersion: added to energies, forces and stress (``mlipjax.dispersion``), as d3bj:FUNCTIONAL; for a model whose
            labels do not contain it.

    A calculator, or atoms that carry one, can be copied and pickled (as configuration and arrays, never code), and
    shared by threads, which take turns. ``parameters`` name the model by the digest of its numbers, the precision and
    the head, so that ASE databases keep a trace of what computed a row.

    Raises:
        ValueError: for an unknown dtype or head; from ``calculate``, for an element the potential does not know, atoms
            that coincide, positions that are not finite, or a result that is not finite.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Potential,
        params: Params,
        dtype: str = "float64",
        head: str | None = None,
        task: str | None = None,
        uncertainty: Estimator | None = None,
        dispersion: str | D3BJ | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}")
        if task is not None:
            warnings.warn("Calculator(task=...) is called head= now.", DeprecationWarning, stacklevel=2)
        self.potential = potential
        self.dtype = np.dtype(dtype)
        self.head = head_index(potential, task if head is None else head)
        self.dispersion = parse_dispersion(dispersion) if isinstance(dispersion, str) else dispersion
        self.parameters = dict(self.parameters or {}) | {
            "model": model_digest(potential, params),
            "dtype": dtype,
            "head": potential.heads[self.head],
            **({} if self.dispersion is None else {"dispersion": self.dispersion.name}),
        }
        self.n_compilations = 0
        self._turn = threading.RLock()
        self._given = params
        self._follower = Follower(potential.cutoff, self.head, self.dtype)
        with jax.enable_x64(dtype == "float64"):
            self.params = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, self.dtype), params)
            self.uncertainty = None if uncertainty is None else cast(uncertainty, self.dtype)
        if uncertainty is not None:
            own = [*self.implemented_properties, "energy_std", "energies_std", "forces_std"]
            self.implemented_properties = own  # pyright: ignore[reportAttributeAccessIssue]
        self._apply = jax.jit(self._counted_apply, static_argnames="stress")

    @property
    def name(self) -> str:
        """Name for ASE databases and logs."""
        return "mlipjax"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle configuration and arrays; raises ``ValueError`` for an architecture that is not the package's own."""
        arrays = {path: np.asarray(leaf) for path, leaf in tree.flatten_paths(self._given).items()}
        return _restored, (potential_to_config(self.potential), self.potential.precision, arrays, *self._rest())

    def __deepcopy__(self, memo: dict[int, Any]) -> Calculator:
        """A calculator of its own with the same potential and parameters, which nothing changes."""
        return _assembled(self.potential, self._given, *copy.deepcopy(self._rest(), memo))

    def _rest(self) -> tuple[Any, ...]:
        own = jax.device_get(self.uncertainty)
        return self.dtype.name, self.potential.heads[self.head], (own, self.dispersion), self.atoms, self.results

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As in ASE; threads that share a calculator take turns."""
        with self._turn:
            return super().get_property(name, atoms, allow_calculation)

    def _counted_apply(self, params: Params, graph: Any, stress: bool) -> Prediction:
        self.n_compilations += 1  # runs while tracing only
        return self.potential.apply(params, graph, stress=stress)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties of ``atoms``; ``stress`` needs three cell vectors."""
        super().calculate(atoms, properties, system_changes)
        self.results = {}
        system, has_volume = self._asked(None)
        if "stress" in properties and not has_volume:
            raise PropertyNotImplementedError("stress needs a cell with three vectors; this structure has none")
        n = system.n_atoms
        graph = self._graph(system)
        prediction = self._predict(graph, has_volume)
        node_energy = np.asarray(prediction.node_energy, np.float64)[:n]
        finite = np.isfinite(node_energy) & np.isfinite(prediction.forces[:n]).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"energy or forces of atom {int(np.argmin(finite))} are not finite; the structure is outside what this "
                f"model, in {self.dtype.name}, can compute."
            )
        e0s = self.potential.e0s[self.head][np.searchsorted(self.potential.species, system.atomic_numbers)]
        energies = node_energy + e0s
        energy = float(np.sum(node_energy) + np.sum(e0s))
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": np.asarray(prediction.forces, np.float64)[:n],
        }
        if has_volume:
            self.results["stress"] = full_to_voigt(np.asarray(prediction.stress[0], np.float64))
        if self.dispersion is not None:
            add_dispersion(self.results, self.dispersion, system)
        if self.uncertainty is not None:
            self.results |= self._spread(graph, n)

    def _spread(self, graph: GraphBatch, n: int) -> dict[str, Any]:
        with jax.enable_x64(self.dtype == np.float64):
            found = jax.device_get(spread(self.uncertainty, self.potential, self.params, graph))
        atoms = {"energies_std": found.energies[:n], "forces_std": found.forces[:n]}
        return {"energy_std": float(found.energy[0])} | {k: np.asarray(v, np.float64) for k, v in atoms.items()}

    def get_descriptors(
        self, atoms: Atoms | None = None, invariants_only: bool = True, num_layers: int = -1
    ) -> np.ndarray:
        """Invariant features of every atom (n, F), float64; name and arguments are those of MACE's calculator.

        Args:
            atoms: structure; by default the last one.
            invariants_only: the only ones that are here.
            num_layers: features of so many layers from the first; -1 for all.

        Raises:
            ValueError: without a structure, for other features or a number of layers that the model does not have, and
                as ``calculate``.
        """
        slices = self.potential.feature_slices
        chosen = len(slices) if num_layers == -1 else num_layers
        if not 1 <= chosen <= len(slices):
            raise ValueError(f"num_layers must be 1 to {len(slices)}, or -1 for all; found {num_layers}.")
        if not invariants_only:
            raise ValueError("features here are invariant; leave invariants_only as it is.")
        system, has_volume = self._asked(atoms)
        with self._turn:
            features = self._predict(self._graph(system), has_volume).features
        return np.asarray(features, np.float64)[: system.n_atoms, : slices[chosen - 1].stop]

    def get_hessian(self, atoms: Atoms | None = None) -> np.ndarray:
        """Exact second derivatives of the energy (3 n, n, 3) in eV/Å^2; the form is that of MACE's calculator.

        Args:
            atoms: structure; by default the last one.

        Raises:
            ValueError: without a structure, with dispersion, and as ``calculate``.
        """
        if self.dispersion is not None:
            raise ValueError(f"second derivatives of {self.dispersion.name} are not computed; leave dispersion out.")
        system, _ = self._asked(atoms)
        with self._turn, jax.enable_x64(self.dtype == np.float64):
            # no padding: each atom costs three derivatives
            batch = batch_graphs(
                [system], self.potential.cutoff, n_atoms=system.n_atoms, heads=[self.head], dtype=self.dtype
            )
            _, rows = jax.device_get(second_derivatives(self.potential, self.params, batch))
        return np.asarray(rows, np.float64).reshape(-1, system.n_atoms, 3)

    def _asked(self, atoms: Atoms | None) -> tuple[System, bool]:
        """The structure that is meant, and whether its cell has a volume."""
        current: Any = self.atoms if atoms is None else atoms
        if current is None:
            raise ValueError("give a structure; this calculator has seen none.")
        system = System.from_ase(current)
        self.potential.check_elements(system.atomic_numbers)
        return system, bool(current.cell.rank == 3)

    def _graph(self, system: System) -> GraphBatch:
        with jax.enable_x64(self.dtype == np.float64):
            return self._follower.graph(system)

    def _predict(self, graph: GraphBatch, stress: bool) -> Prediction:
        with jax.enable_x64(self.dtype == np.float64):
            return jax.device_get(self._apply(self.params, graph, stress=stress))


def _restored(
    description: dict[str, Any], precision: Precision, arrays: dict[str, np.ndarray], *rest: Any
) -> Calculator:
    """Inverse of ``Calculator.__reduce__``."""
    potential = potential_from_config(description).replace(precision=precision)
    return _assembled(potential, tree.unflatten_paths(arrays), *rest)


def _assembled(
    potential: Potential,
    params: Params,
    dtype: str,
    head: str,
    beside: tuple[Estimator | None, D3BJ | None],
    atoms: Atoms | None,
    results: dict[str, Any],
) -> Calculator:
    calculator = Calculator(potential, params, dtype, head, uncertainty=beside[0], dispersion=beside[1])
    calculator.atoms, calculator.results = atoms, results
    return calculator


def model_digest(potential: Potential, params: Params) -> str:
    """Sixteen hexadecimal digits that depend on configuration, isolated-atom energies and every parameter."""
    facts = (type(potential.module).__name__, potential.config, potential.species, potential.heads)
    leaves = ((path, np.ascontiguousarray(leaf)) for path, leaf in sorted(tree.flatten_paths(params).items()))
    named = ((f"{path} {leaf.dtype} {leaf.shape}", leaf) for path, leaf in leaves)
    return digest(repr(facts), np.asarray(potential.e0s, np.float64), *itertools.chain.from_iterable(named))[:16]
