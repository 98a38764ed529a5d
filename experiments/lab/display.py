"""How experiments print: as the commands do."""

from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.error_tables import element_table, error_table
from mlipjax.cli.output import make_console
from mlipjax.cli.progress import make_bar
from mlipjax.cli.tables import Table

__all__ = ["FinetuneDisplay", "Table", "element_table", "error_table", "make_bar", "make_console"]
