"""Reading labelled structures, splitting them by trajectory, finding duplicates, writing trajectories."""

from mlipjax.data.atoms import iread_atoms, read_atoms, read_last_atoms, say_electrons
from mlipjax.data.dataset import Dataset, Example, View, take
from mlipjax.data.extxyz import TrajectoryWriter, write_dataset
from mlipjax.data.hashing import canonical_hash, find_duplicates, structure_hash
from mlipjax.data.label_keys import LabelKeyError, LabelKeys
from mlipjax.data.read import gather, read_dataset, read_examples
from mlipjax.data.splits import GROUP_KEYS, find_group_key, runs_of, split_dataset
from mlipjax.data.store import hash_input, write_store
from mlipjax.data.write import save_examples

__all__ = [
    "GROUP_KEYS",
    "Dataset",
    "Example",
    "LabelKeyError",
    "LabelKeys",
    "TrajectoryWriter",
    "View",
    "canonical_hash",
    "find_duplicates",
    "find_group_key",
    "gather",
    "hash_input",
    "iread_atoms",
    "read_atoms",
    "read_dataset",
    "read_examples",
    "read_last_atoms",
    "runs_of",
    "save_examples",
    "say_electrons",
    "split_dataset",
    "structure_hash",
    "take",
    "write_dataset",
    "write_store",
]
