"""A periodic fine-tune of a model by name, from a structure in a file or in memory, with an oracle by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipjax.finetuning.periodic import PeriodicListener, PeriodicResult, Problem, run_periodic
from mlipjax.finetuning.plan import Simulated
from mlipjax.hosts import refuse_several
from mlipjax.notices import notice
from mlipjax.oracles import Oracle, Workers, make_oracle
from mlipjax.oracles.dispersion import WithoutDispersion
from mlipjax.oracles.executors import as_workers
from mlipjax.settings import PeriodicSettings, SystemSettings
from mlipjax.verbs.dispersion import open_dispersion
from mlipjax.verbs.inputs import ModelLike, Structures, described, in_dtype, is_nothing, last_of, open_native
from mlipjax.verbs.logged import Log, logged, rounds_in
from mlipjax.verbs.read import names_among, read
from mlipjax.verbs.settings import completed, refuse_unknown
from mlipjax.verbs.simulation import start_of


def periodic(
    model: ModelLike,
    structure: Atoms | str | os.PathLike[str] | Sequence[Atoms | str | os.PathLike[str]] = (),
    *,
    systems: Sequence[SystemSettings] = (),
    oracle: Oracle | str,
    data: Structures = (),
    out: str | os.PathLike[str] | None = None,
    head: str | None = None,
    dispersion: str | None = None,
    workers: int | None = None,
    executor: Workers | str | Any = None,
    settings: PeriodicSettings | None = None,
    listener: PeriodicListener | None = None,
    log: Sequence[Log] = (),
    **options: Any,
) -> PeriodicResult:
    """Fine-tune a model along its own MD: simulate, label, train on all labels so far, and drive on.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        structure: where trajectories start: ``Atoms``, or a file that ASE reads (its last structure); one or several,
            of any sizes, elements and periodicities. Masses and fixed atoms are honoured; velocities are drawn.
        systems: structures with settings of their own (``mlipjax.settings.SystemSettings``), besides those of
            ``structure``.
        oracle: source of the labels, by name (``"xtb"``, ``"teacher:MODEL"``, ``"cp2k:..."``,
            ``"ase:module:factory"``, ``"lj:..."``) or an object (``mlipjax.oracles``).
        data: labelled frames from before, of the oracle's level of theory, that are trained on too: what
            ``mlipjax.read`` takes or returns.
        out: folder of the run, which the same call resumes, and with more rounds goes on with; ``None`` keeps nothing
            on disk.
        head: name of the energy head that is trained; by default the first. It is the first of the result.
        dispersion: what the labels contain, as d3bj:FUNCTIONAL: it is taken off them before training (``labels.db`` and
            the frames of the result are without it), and added to the model in its MD.
        workers: processes that label; by default one per core.
        executor: where to label instead: by name (``oracles.make_executor``: ``"dask:tcp://HOST:8786"``,
            ``"submitit:FOLDER,partition=short"``, ...) or an object with ``submit`` of yours.
        settings: everything else; by default what ``options`` say.
        listener: is told of plan and pieces of work.
        log: also write the errors of rounds and the losses into ``out`` as "csv", for "tensorboard" or for "wandb";
            several of them.
        options: fields of ``PeriodicSettings``, such as ``rounds=5``, ``temperature=400.0``; names and units of the
            labels in files of ``data``, as for ``mlipjax.read``.

    Returns:
        The model of the last round, all labelled frames, and the errors of every round's model on frames that it had
        not seen.

    Raises:
        ValueError, FileNotFoundError: if model, structure, oracle, data or settings cannot be honoured, a finding of
            the doctor in the data is fatal, or the folder holds another run.
        TypeError: for an option that does not exist.
        Stopped: if the run cannot go on (MD left its limits, training diverged, no label succeeded).
        InUseError: if another process works in the folder.

    Examples:
        >>> import mlipjax
        >>> from ase.build import bulk
        >>> atoms = bulk("MgO", "rocksalt", a=4.25, cubic=True)
        >>> short = {"rounds": 1, "labels_per_round": 1, "steps": 2, "train_steps": 1}
        >>> result = mlipjax.periodic("universal", atoms, oracle="teacher:universal", **short)
        >>> len(result.frames), result.report["rounds"][0]["labels_before"]
        (1, 0)
    """
    refuse_several("a periodic fine-tune")
    labels, settings = names_among(options), completed(PeriodicSettings, settings, options)
    refuse_unknown(options, PeriodicSettings)
    listener = PeriodicListener() if listener is None else listener
    with in_dtype(settings.dtype), logged(listener, log, out, rounds_in) as listener:
        opened = open_native(model, head)
        simulated = [part for own in (*_shared(structure), *systems) for part in _read_system(own, settings)]
        if not simulated:
            raise ValueError("a periodic fine-tune needs a structure to start from, found none.")
        place = None if executor is None else as_workers(executor, workers)
        source = make_oracle(oracle) if isinstance(oracle, str) else oracle
        folder = None if out is None else Path(out)
        known = None if is_nothing(data) else read(data, **labels, required=("energy", "forces"))
        contained = open_dispersion(dispersion, opened)
        if contained is not None:
            source = WithoutDispersion(source, contained)
            known = None if known is None else contained.off_dataset(known)
        problem = Problem(opened.first, simulated, source, known, contained)
        return run_periodic(problem, settings, out=folder, workers=workers, executor=place, listener=listener)


def _shared(structures: Any) -> list[SystemSettings]:
    """Structures with the settings of the run."""
    if isinstance(structures, (Atoms, str, os.PathLike)) or not isinstance(structures, Sequence):
        structures = (structures,)
    return [SystemSettings(structure=structure) for structure in structures]


def _read_system(system: SystemSettings, settings: PeriodicSettings) -> list[Simulated]:
    """A structure with masses and constraints at each of its temperatures; what is honoured or not is said."""
    structure = system.structure
    if not isinstance(structure, (Atoms, str, os.PathLike)):
        raise TypeError(f"a periodic fine-tune starts from ase.Atoms or a file, found {type(structure).__name__}.")
    name = described(structure)
    start = start_of(last_of(structure), name)
    if start.momenta is not None:
        notice(f"{name}: its momenta are not used; velocities are drawn.")
    return [Simulated(start, own, name) for own in settings.at_each_temperature(system)]
