"""Other people's simulation programs, driven by a potential of this package."""

from mlipjax.engines.ipi_input import IpiRun, write_ipi_run

__all__ = ["IpiRun", "write_ipi_run"]
