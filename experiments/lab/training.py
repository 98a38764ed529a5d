"""Following a fine-tune in experiments and showing its errors: as the command does."""

from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.tables import element_table, error_table

__all__ = ["FinetuneDisplay", "element_table", "error_table"]
