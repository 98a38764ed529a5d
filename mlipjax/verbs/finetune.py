"""Fine-tuning a model on labelled structures, or to a property of structures."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Unpack

from mlipjax.data import Dataset
from mlipjax.data.products import PRODUCT, products_in, products_of_displacements
from mlipjax.data.properties import open_properties, parse_property
from mlipjax.dispersion import D3BJ
from mlipjax.finetuning.committee import refuse_replay, train_members
from mlipjax.finetuning.properties import PropertyInput, finetune_property
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.finetuning.single import FinetuneResult, Preparation, prepare
from mlipjax.finetuning.single import finetune as finetune_force_field
from mlipjax.hosts import is_first, refuse_several
from mlipjax.notices import notice
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.verbs.calibrate import calibrate
from mlipjax.verbs.dispersion import open_dispersion, say_level
from mlipjax.verbs.inputs import ModelLike, Structures, in_dtype, is_nothing, name_of, open_native, paths_in
from mlipjax.verbs.logged import Log, logged
from mlipjax.verbs.read import LabelNames, names_among, read
from mlipjax.verbs.settings import completed, refuse_unknown

_TEACHER = "teacher"


def finetune(
    model: ModelLike,
    train: Structures = (),
    *,
    valid: Structures = (),
    hvp: Structures = (),
    property: str | None = None,
    head: str | None = None,
    committee: int = 1,
    out: str | os.PathLike[str] | None = None,
    dispersion: str | None = None,
    settings: FinetuneSettings | None = None,
    task: PropertySettings | None = None,
    listener: Any = None,
    log: Sequence[Log] = (),
    **options: Any,
) -> FinetuneResult:
    """Fine-tune a model; with a folder the same call again resumes a run that was stopped.

    Args:
        model: what ``mlipjax.load`` takes or returns: where to start.
        train: labelled structures: what ``mlipjax.read`` takes or returns.
        valid: structures for validation, like those of training; by default a part of them, by trajectory.
        hvp: Hessian-vector products to train on beside energies and forces: structures with arrays ``hvp_probe`` and
            ``hvp`` (eV/Å^2); structures displaced against each other by less than 0.1 Å, with forces; or
            "teacher:MODEL", which gives products of all structures with random probes.
        property: structures and a number for each instead, as FILE:KEY.
        head: name of the energy head that is trained; by default the first. It is the first of the result.
        committee: members of a committee, which gives the model error bars (``uncertainty="committee"``): the fine-tune
            itself and more of them from other seeds, in one program and without resuming, calibrated on the
            structures for validation. A run that is done can be given one.
        out: folder of the run; at the end a model itself, with a report.html. ``None`` keeps nothing on disk.
        dispersion: what the labels contain, as d3bj:FUNCTIONAL: it is taken off before training, and the model is used
            with ``dispersion`` afterwards.
        settings: everything else (``FinetuneSettings``); by default what ``options`` say.
        task: settings of the property (``PropertySettings``); likewise.
        listener: is told of plan, steps and epochs: a ``FinetuneListener``, or of a property a ``PropertyListener``.
        log: also write the numbers of epochs into ``out`` as "csv", for "tensorboard" or for "wandb"; several of them.
        options: fields of ``FinetuneSettings`` and ``PropertySettings``, such as ``strategy="replay"``, ``epochs=20``;
            names and units of the labels in files, as for ``mlipjax.read``.

    Returns:
        ``model``, the ``report`` (JSON types; also in ``report.json``), and as a tuple potential, parameters, report.

    Raises:
        ValueError, FileNotFoundError: if model, data or settings cannot be honoured, or a finding of the doctor is
            fatal.
        TypeError: for an option that does not exist.
        NonFiniteError: if training diverges.

    Examples:
        >>> import mlipjax
        >>> from ase.build import bulk
        >>> cells = [bulk("MgO", "rocksalt", a=a) for a in (4.1, 4.2, 4.3)]
        >>> labelled = mlipjax.predict("universal", cells)
        >>> tuned = mlipjax.finetune("universal", labelled, epochs=1, valid_fraction=0.0, anchor="none")
        >>> mlipjax.evaluate(tuned.model, labelled)["energy_mae_meV_per_atom"] < 1.0
        True
    """
    labels, settings = names_among(options), completed(FinetuneSettings, settings, options)
    task = completed(PropertySettings, task, options)
    refuse_unknown(options, FinetuneSettings, PropertySettings)
    if is_nothing(train) == (property is None):
        raise ValueError(
            'give either train="FILE" (energies and forces) or property="FILE:KEY" (a number per structure).'
        )
    listener = FinetuneListener() if listener is None else listener
    with in_dtype(settings.dtype), logged(listener, log if is_first() else (), out) as listener:
        if property is not None:
            _refuse_beside_property(head, dispersion, committee, hvp)
            return _learn_property(model, property, valid, out, settings, task, listener)
        if settings.strategy in ("ft", "lp", "mft") or task != PropertySettings():
            raise ValueError(
                f'strategy {settings.strategy!r} and options of a property need property="FILE:KEY"; for energies and '
                "forces choose another strategy and leave the options out."
            )
        keys: dict[str, Any] = {**labels, "required": ("energy", "forces")}
        train_data, valid_data = read(train, **keys), None if is_nothing(valid) else read(valid, **keys)
        opened = open_native(model, head)
        start, contained = opened.first, open_dispersion(dispersion, opened)
        say_level(opened.name, train_data)
        if contained is not None:
            train_data = contained.off_dataset(train_data)
            valid_data = None if valid_data is None else contained.off_dataset(valid_data)
        products = _open_products(hvp, contained, **labels)
        if products is not None and committee != 1:
            raise ValueError(f"committee={committee} is trained on energies and forces alone; leave hvp out.")
        ready = None if committee == 1 else _for_committee(committee, out, start, train_data, valid_data, settings)
        options = {"settings": settings, "products": products, "out": out, "listener": listener}
        result = finetune_force_field(start, train_data, valid_data, **options)
        if ready is not None:
            result.report["committee"] = _committee(result, ready, settings, committee, out)
        return result


def _refuse_beside_property(head: str | None, dispersion: str | None, committee: int, hvp: Structures) -> None:
    if head is not None:
        raise ValueError(f"head={head!r} chooses an energy head; a property has a head of its own.")
    if dispersion is not None:
        raise ValueError(f"dispersion={dispersion!r} is taken off energies and forces, not off a property.")
    if committee != 1:
        raise ValueError(f"committee={committee} gives energies and forces error bars, not a property.")
    if not is_nothing(hvp):
        raise ValueError("Hessian products (hvp) are trained on beside energies and forces, not beside a property.")


def _open_products(hvp: Structures, dispersion: D3BJ | None, **labels: Unpack[LabelNames]) -> Dataset | Model | None:
    """Open what products come from; ``None`` for nothing.

    Args:
        hvp: structures with arrays ``hvp_probe`` and ``hvp``; structures displaced against each other, with forces; or
            ``teacher:MODEL``.
        dispersion: contained in the forces.
        labels: their names and units, as of ``read``.

    Raises:
        ValueError, FileNotFoundError: if it cannot be used.
    """
    if is_nothing(hvp):
        return None
    paths = paths_in(hvp)
    if teachers := [path for path in paths if path.partition(":")[0] == _TEACHER]:
        model = teachers[0].partition(":")[2]
        if len(paths) > 1 or not model:
            raise ValueError(f"hvp={' '.join(paths)}: give teacher:MODEL, or files, not both.")
        return open_native(model).first
    dataset = read(hvp, **labels)
    found = products_in(dataset)
    if not len(found):
        return products_of_displacements(dataset if dispersion is None else dispersion.off_dataset(dataset))
    if dispersion is not None:
        raise ValueError(f"{name_of(hvp)}: dispersion is not taken off {PRODUCT!r}; give displaced structures.")
    if len(found) < len(dataset):
        notice(f"{name_of(hvp)}: {len(dataset) - len(found)} of {len(dataset)} structures have no {PRODUCT!r}.")
    return found


def _for_committee(
    members: int, out: Any, start: Model, train: Dataset, valid: Dataset | None, settings: FinetuneSettings
) -> Preparation:
    """Prepare the other members; refuses before the training what would fail after it."""
    refuse_several("a committee")
    if members < 1:
        raise ValueError(f"committee must be 1 (none) or more, found {members}.")
    if out is None:
        raise ValueError("a committee is kept in the folder of a run; give one (out).")
    if valid is None and settings.valid_fraction == 0.0:
        raise ValueError("a committee is calibrated on structures for validation; give some (valid, valid_fraction).")
    ready = prepare(start, train, valid, settings)
    if ready.judge.valid is None:
        raise ValueError("a committee is calibrated on structures for validation, and there are none.")
    refuse_replay(ready)
    return ready


def _committee(
    result: FinetuneResult, ready: Preparation, settings: FinetuneSettings, n: int, out: Any
) -> dict[str, Any]:
    """Train the other members, calibrate them with the model itself, and say what they cost."""
    assert ready.judge.valid is not None
    began = time.monotonic()
    members = train_members(ready, settings, n - 1)
    seconds = time.monotonic() - began
    facts = calibrate(out, valid=ready.judge.valid.dataset, members=members, dtype=settings.dtype)
    one = result.report["seconds"]
    return {**facts, "seconds": round(seconds, 1), "seconds_of_one": one, "times_one": seconds / ((n - 1) * one)}


def _learn_property(
    model: ModelLike,
    given: str,
    valid: Structures,
    out: str | os.PathLike[str] | None,
    settings: FinetuneSettings,
    task: PropertySettings,
    listener: Any,
) -> FinetuneResult:
    file, key = parse_property(given)
    files = paths_in(valid)
    if len(files) > 1 or (not files and not is_nothing(valid)):
        raise ValueError("a property is validated on one file: valid is its name, and its key that of the property.")
    start = open_native(model).model
    data = PropertyInput(open_properties(file, key), open_properties(files[0], key) if files else None)
    return finetune_property(start, data, settings=settings, options=task, out=out, listener=listener)
