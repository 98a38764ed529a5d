"""Learning-rate schedules as factors of the peak learning rate."""

from __future__ import annotations

from typing import Literal

import optax

ScheduleName = Literal["cosine", "exponential", "constant"]


def schedule_factor(
    name: ScheduleName, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.01
) -> optax.Schedule:
    """Return ``step -> factor``: linear warm-up to 1, then decay to ``final_factor`` at ``total_steps``.

    The factor of the very first step is ``1 / (warmup_steps + 1)``, not zero: no step is wasted.

    Args:
        name: shape after the warm-up; ``constant`` ignores ``final_factor``.
        total_steps: steps of the whole run; the factor stays at its last value afterwards.
        warmup_steps: steps of the warm-up, fewer than ``total_steps``.
        final_factor: value at the end, in (0, 1].

    Raises:
        ValueError: for step numbers or a final factor outside these ranges, or an unknown name.
    """
    if total_steps < 1 or not 0 <= warmup_steps < max(total_steps, 2):
        raise ValueError(f"need 0 <= warmup_steps < total_steps, found {warmup_steps} and {total_steps}.")
    if not 0.0 < final_factor <= 1.0:
        raise ValueError(f"final_factor must lie in (0, 1], found {final_factor}.")
    decay_steps = max(total_steps - warmup_steps, 1)
    if name == "cosine":
        decay = optax.cosine_decay_schedule(1.0, decay_steps, alpha=final_factor)
    elif name == "exponential":
        decay = optax.exponential_decay(1.0, decay_steps, final_factor, end_value=final_factor)
    elif name == "constant":
        decay = optax.constant_schedule(1.0)
    else:
        raise ValueError(f"unknown schedule {name!r}; choose cosine, exponential or constant.")
    if warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(1.0 / (warmup_steps + 1), 1.0, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])
