"""How experiments show fine-tunes and errors: as the commands do."""

from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.error_tables import element_table, error_table

__all__ = ["FinetuneDisplay", "element_table", "error_table"]
