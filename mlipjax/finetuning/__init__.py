"""Fine-tuning: once on labelled structures, or periodically along molecular dynamics."""

from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.compiled import check_rounds, init, run_compiled
from mlipjax.finetuning.round import make_round
from mlipjax.finetuning.run import FinetuneResult
from mlipjax.finetuning.setup import Controls, RoundConfig, Setup
from mlipjax.finetuning.single import finetune
from mlipjax.finetuning.state import FineTuneState, LabelBuffer, RoundInfo
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
