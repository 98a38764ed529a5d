"""Checkpoints of any pytree of arrays, so that a killed run goes on as if it had never stopped."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


class Checkpoints:
    """Numbered checkpoints in a folder, written by orbax; the newest complete one counts.

    Orbax writes under a temporary name and marks a checkpoint complete in the last step, so that after a kill at
    any moment the folder still restores to a state that was saved. Leaves are stored by their path in the tree
    (``.params['layer_0']['kernel']``), PRNG keys as their integers.

    Example:
        checkpoints = Checkpoints(folder)
        state = checkpoints.restore(state) or state
        checkpoints.save(int(state.step), state)
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        """Open ``folder``, made if absent, in which the ``keep`` newest checkpoints stay."""
        # here and not above: takes seconds, and only runs that save need it
        import orbax.checkpoint as ocp

        # orbax reports every save of every run; the progress display says what users need
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        several, own = jax.process_count() > 1, jax.process_index()
        # of several processes, the one that writes does not wait for the others
        alone = {"primary_host": own, "active_processes": {own}, "barrier_sync_key_prefix": str(own)} if several else {}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(**alone),
        )
        self._arguments = ocp.args
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """Number of the newest complete checkpoint, ``None`` if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Save ``state`` as number ``step``; a number that is there already is left as it is."""
        if step != self.latest():
            arguments = self._arguments.StandardSave(_to_arrays(state))
            _patiently(lambda: self._manager.save(step, args=arguments, force=True))

    def restore(self, template: T, *, grow: bool = False) -> T | None:
        """Return the newest checkpoint in the shape of ``template``, or ``None`` if there is none.

        Args:
            template: a state of the same kind.
            grow: let arrays be shorter along their first axis than those of ``template``, which fill them up.

        Raises:
            ValueError: if its leaves have other paths, shapes or dtypes than the template's.
        """
        step = self.latest()
        if step is None:
            return None
        wanted = _to_arrays(template)
        found = dict(self._manager.restore(step, args=self._arguments.StandardRestore()))
        if grow:
            found = {path: _grown(array, wanted.get(path)) for path, array in found.items()}
        expected, present = _shapes(wanted), _shapes(found)
        for path in sorted(set(expected) | set(present)):
            if expected.get(path) != present.get(path):
                raise ValueError(
                    f"{self.folder}: checkpoint {step} is of another run: {path} is {present.get(path)}, expected "
                    f"{expected.get(path)}. Choose another folder."
                )
        return _from_arrays(found, template)

    def close(self) -> None:
        """Release orbax's resources."""
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _patiently(function: Callable[[], Any], seconds: Sequence[float] = (0.1, 0.5, 2.0)) -> None:
    """Call a function again while a folder that it clears away is still filled.

    Threads of a save that failed, on a full disk, may go on writing for a moment in the process that tries again.
    """
    for wait in seconds:
        try:
            function()
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            time.sleep(wait)
    function()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _grown(array: Any, longer: np.ndarray | None) -> Any:
    """An array, filled up with the end of one that is like it and longer."""
    if longer is None or not array.ndim or array.shape[1:] != longer.shape[1:] or array.dtype != longer.dtype:
        return array
    return np.concatenate([np.asarray(array), longer[len(array) :]])


def _shapes(arrays: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {path: (*array.shape, str(array.dtype)) for path, array in arrays.items()}


def _to_arrays(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in leaves
    }


def _from_arrays(arrays: dict[str, Any], template: T) -> T:
    def restore(path: Any, leaf: Any) -> Any:
        array = jax.numpy.asarray(np.asarray(arrays[jax.tree_util.keystr(path)]))
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array

    return jax.tree_util.tree_map_with_path(restore, template)
