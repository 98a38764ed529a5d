"""Fine-tuning: once on labelled structures, or periodically along molecular dynamics."""

from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.compiled import SystemStart, init, run_compiled, run_rounds
from mlipjax.finetuning.periodic import PeriodicListener, PeriodicResult, Problem, run_periodic
from mlipjax.finetuning.plan import Simulated, plan_periodic
from mlipjax.finetuning.run import FinetuneResult
from mlipjax.finetuning.setup import Controls, RoundConfig, Setup, SystemControls, SystemSetup
from mlipjax.finetuning.single import finetune
from mlipjax.finetuning.state import FineTuneState
from mlipjax.settings import FinetuneSettings, PeriodicSettings, SystemSettings

__all__ = [
    "AlarmConfig",
    "Controls",
    "FineTuneState",
    "FinetuneResult",
    "FinetuneSettings",
    "PeriodicListener",
    "PeriodicResult",
    "PeriodicSettings",
    "Problem",
    "RoundConfig",
    "Setup",
    "Simulated",
    "SystemControls",
    "SystemSettings",
    "SystemSetup",
    "SystemStart",
    "finetune",
    "init",
    "plan_periodic",
    "run_compiled",
    "run_periodic",
    "run_rounds",
]
