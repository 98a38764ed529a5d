"""Fine-tuning: once on labelled structures, or periodically along molecular dynamics."""

from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.compiled import init, run_compiled, run_rounds
from mlipjax.finetuning.periodic import PeriodicListener, PeriodicResult, plan_periodic, run_periodic
from mlipjax.finetuning.round import make_round
from mlipjax.finetuning.run import FinetuneResult
from mlipjax.finetuning.setup import Controls, RoundConfig, Setup
from mlipjax.finetuning.single import finetune
from mlipjax.finetuning.state import FineTuneState, LabelBuffer, RoundInfo
from mlipjax.settings import FinetuneSettings, PeriodicSettings

__all__ = [
    "AlarmConfig",
    "Controls",
    "FineTuneState",
    "FinetuneResult",
    "FinetuneSettings",
    "LabelBuffer",
    "PeriodicListener",
    "PeriodicResult",
    "PeriodicSettings",
    "RoundConfig",
    "RoundInfo",
    "Setup",
    "finetune",
    "init",
    "make_round",
    "plan_periodic",
    "run_compiled",
    "run_periodic",
    "run_rounds",
]
