"""Reading labelled structures, splitting them by trajectory, finding duplicates, writing trajectories."""

from mlipjax.data.dataset import Dataset, Example
from mlipjax.data.extxyz import TrajectoryWriter, write_dataset
from mlipjax.data.hashing import canonical_hash, find_duplicates, structure_hash
from mlipjax.data.read import LabelKeys, read_dataset
from mlipjax.data.splits import GROUP_KEYS, Split, find_group_key, split_dataset

__all__ = [
    "GROUP_KEYS",
    "Dataset",
    "Example",
    "LabelKeys",
    "Split",
    "TrajectoryWriter",
    "canonical_hash",
    "find_duplicates",
    "find_group_key",
    "read_dataset",
    "split_dataset",
    "structure_hash",
    "write_dataset",
]
