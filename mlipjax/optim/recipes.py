"""The strategies by name, with default settings and their reasons.

Defaults start from the recipe of arXiv 2606.12704 (seven strategies on five benchmarks) and depart from it where a
measurement says so. Weight decay is 0 and loss weights are constant in all of them, as that study recommends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

from mlipjax.optim import defaults
from mlipjax.optim.defaults import layer_count as layer_count
from mlipjax.optim.groups import split
from mlipjax.optim.strategies import Strategy
from mlipjax.typing import Params

_LAYERS = ("freeze_layers", "layer_decay", "layer_multipliers")
_PULLS = ("l2sp", "ewc")


class StrategyOptions(TypedDict, total=False):
    """Options of strategies; ``None`` for a strategy's own default.

    Attributes:
        freeze_layers: how many layers from the bottom to freeze (embeddings included). ``freeze`` takes half of
            them by default; ``l2sp``, ``ewc``, ``replay`` and ``pseudo-replay`` take it as an addition.
        layer_decay: ratio of the learning rates of neighbouring layers, in (0, 1]; for ``llrd``, or as an addition.
        layer_multipliers: one learning-rate multiplier per layer from the bottom instead; likewise.
        l2sp: strength of the pull towards the pretrained weights; for all but ``lora`` and ``scratch``.
        ewc: the same, weighted by the Fisher information.
        lora_rank: for ``lora``, rank of the adapters.
        lora_radial: for ``lora``, whether radial kernels are adapted too.
        replay_weight: for ``replay`` and ``pseudo-replay``, factor of the loss of replayed structures.
        optimizer: "muon" or "adam", with the learning rate that goes with it; for all of them.
    """

    freeze_layers: int | None
    layer_decay: float | None
    layer_multipliers: Sequence[float] | None
    l2sp: float | None
    ewc: float | None
    lora_rank: int | None
    lora_radial: bool | None
    replay_weight: float | None
    optimizer: str | None


def make_strategy(name: str, params: Params, **options: Unpack[StrategyOptions]) -> Strategy:
    """Return a strategy for the parameters of one potential.

    Args:
        name: key of ``STRATEGIES``.
        params: parameters with ``layer_<i>/...`` below ``readout...``, as the model has them (without adapters);
            only names and shapes are read.
        options: see ``StrategyOptions``.

    Raises:
        ValueError: for an unknown name, an option that the strategy cannot be combined with, or options that do not
            fit the layers.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    # a flag that is off asks for nothing
    given: dict[str, Any] = {
        option: value for option, value in options.items() if value is not None and value is not False
    }
    optimizer = given.pop("optimizer", None)
    _check_options(name, given)
    pulls = {option: given.pop(option) for option in _PULLS if option in given}
    strategy = STRATEGIES[name](params, **given)
    for kind, strength in pulls.items():
        strategy = defaults.with_pull(strategy, kind, strength)
    if optimizer is not None:
        strategy = defaults.with_optimizer(strategy, optimizer)
    if strategy.adapters is None:
        split(params, strategy.rules)
    else:
        strategy.adapters.paths(params)
    return strategy


def choose_strategy(n_frames: int, n_compositions: int) -> tuple[str, str]:
    """Return a strategy for a training set, and why.

    The recipe (arXiv 2606.12704) says what each strategy is good for; the numbers of frames are this project's.

    Args:
        n_frames: labelled structures to train on.
        n_compositions: different compositions among them.
    """
    size = f"{n_frames} frames of {n_compositions} composition{'s' if n_compositions > 1 else ''}"
    if n_frames < _FEW_FRAMES:
        return "pseudo-replay", (
            f"{size}, fewer than {_FEW_FRAMES}, say little about what they do not contain: of all strategies only "
            "replay keeps the pretraining accuracy and the short-range wall (recipe); its cost of 3-15 times is "
            "small for so few"
        )
    if n_compositions > _MANY_COMPOSITIONS and n_frames < _MANY_FRAMES:
        return "lora", (
            f"{size}: more than one system with fewer than {_MANY_FRAMES} frames; adapters forget slightly less than "
            "training all parameters (recipe)"
        )
    return "naive", f"{size}: enough to train all parameters, which is best for the system at hand (recipe)"


_FEW_FRAMES, _MANY_FRAMES, _MANY_COMPOSITIONS = 30, 1000, 5


def _check_options(name: str, given: dict[str, Any]) -> None:
    takes = _OPTIONS.get(name, ())
    for option in given:
        if option not in takes:
            reason = next((why for (a, b), why in _WHY_NOT.items() if a == name and option in b), "")
            known = f"it takes {', '.join(f'{one}=X' for one in takes) or 'none'}"
            raise ValueError(f"strategy {name!r} has no option {option}{reason}; {known}.")
    if all(kind in given for kind in _PULLS):
        raise ValueError(f"l2sp {given['l2sp']} and ewc {given['ewc']} are the same pull, weighted in two ways; one.")
    for option in (*_PULLS, "replay_weight"):
        if option in given and not given[option] >= 0.0:
            raise ValueError(f"{option} is a strength and must not be negative, found {given[option]}.")
    if "freeze_layers" in given and len([option for option in _LAYERS if option in given]) > 1:
        raise ValueError("freeze_layers and layer-wise learning rates contradict each other; give one of them.")


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "naive": defaults.make_naive,
    "freeze": defaults.make_freeze,
    "llrd": defaults.make_llrd,
    "lora": defaults.make_lora,
    "replay": defaults.make_replay,
    "pseudo-replay": defaults.make_pseudo_replay,
    "l2sp": defaults.make_l2sp,
    "ewc": defaults.make_ewc,
    "scratch": defaults.make_scratch,
}
"""Strategies of ``make_strategy``, by name."""

_OPTIONS = {
    "naive": _PULLS,
    "freeze": ("freeze_layers", *_PULLS),
    "llrd": ("layer_decay", "layer_multipliers", *_PULLS),
    "l2sp": ("l2sp", *_LAYERS),
    "ewc": ("ewc", *_LAYERS),
    "lora": ("lora_rank", "lora_radial"),
    "replay": ("replay_weight", *_LAYERS, *_PULLS),
    "pseudo-replay": ("replay_weight", *_LAYERS, *_PULLS),
}
_WHY_NOT = {
    ("lora", _PULLS): ": a pull acts on weights that adapters leave where they are",
    ("lora", ("replay_weight",)): ": replay with adapters is worse than either alone (arXiv 2606.12704)",
    ("replay", ("lora_rank", "lora_radial")): ": replay with adapters is worse than either alone (arXiv 2606.12704)",
    ("pseudo-replay", ("lora_rank", "lora_radial")): ": replay with adapters is worse than either (arXiv 2606.12704)",
    ("scratch", _PULLS): ": fresh parameters have no pretrained weights to be pulled to",
}
