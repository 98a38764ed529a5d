"""Other people's simulation programs, driven by a potential of this package."""

from mlipjax.engines.ipi_input import IpiRun, write_ipi_run
from mlipjax.engines.lammps_input import LammpsRun, write_lammps_run
from mlipjax.engines.run import EngineRun

__all__ = ["EngineRun", "IpiRun", "LammpsRun", "write_ipi_run", "write_lammps_run"]
