"""All kinds of hostile input."""

from __future__ import annotations

from campaign import (
    hostile_cp2k,
    hostile_model_files,
    hostile_options,
    hostile_stores,
    hostile_structures,
    hostile_torch,
)
from campaign.hostile_case import Kind

KINDS: tuple[Kind, ...] = (
    *hostile_structures.KINDS,
    *hostile_cp2k.KINDS,
    *hostile_model_files.KINDS,
    *hostile_torch.KINDS,
    *hostile_stores.KINDS,
    *hostile_options.KINDS,
)
BY_NAME = {kind.name: kind for kind in KINDS}
