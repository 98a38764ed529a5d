"""Fine-tuning: once on labelled structures, or periodically along molecular dynamics."""

from mlipjax.finetune import _callable as _callable
from mlipjax.finetune.alarm import AlarmConfig
from mlipjax.finetune.compiled import check_rounds, init, run_compiled
from mlipjax.finetune.round import make_round
from mlipjax.finetune.setup import Controls, RoundConfig, Setup
from mlipjax.finetune.single import FinetuneResult, finetune
from mlipjax.finetune.state import FineTuneState, LabelBuffer, RoundInfo
from mlipjax.settings import FinetuneSettings

__all__ = [
    "AlarmConfig",
    "Controls",
    "FineTuneState",
    "FinetuneResult",
    "FinetuneSettings",
    "LabelBuffer",
    "RoundConfig",
    "RoundInfo",
    "Setup",
    "check_rounds",
    "finetune",
    "init",
    "make_round",
    "run_compiled",
]
