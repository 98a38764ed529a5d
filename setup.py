"""The one thing pyproject.toml cannot say: ``data/universal`` is installed as ``mlipjax/_data/universal``.

In a checkout or an editable installation the model is used from where it lies, so nothing is copied then.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModel(build_py):
    """Build the package, then put the embedded model into it."""

    def run(self):
        """Copy ``data/universal`` into the build folder, in place of what an earlier build left there."""
        super().run()
        source = Path(__file__).resolve().parent / "data" / "universal"
        if source.is_dir() and not self.editable_mode:
            target = Path(self.build_lib) / "mlipjax" / "_data" / "universal"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)


setup(cmdclass={"build_py": BuildWithModel})
