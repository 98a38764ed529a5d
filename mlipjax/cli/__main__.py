"""``python -m mlipjax.cli`` is ``mlipjax``."""

import sys

from mlipjax.cli.main import main

sys.exit(main())
