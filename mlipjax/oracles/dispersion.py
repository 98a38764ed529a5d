"""An oracle whose labels contain dispersion that a model shall not learn."""

from __future__ import annotations

from dataclasses import dataclass

from mlipjax.dispersion import D3BJ
from mlipjax.oracles.protocol import Oracle
from mlipjax.system import Labels, System


@dataclass(frozen=True)
class WithoutDispersion:
    """Labels of another oracle with dispersion taken off.

    Attributes:
        oracle: whose labels contain it.
        dispersion: what they contain.
    """

    oracle: Oracle
    dispersion: D3BJ

    jittable = False

    @property
    def name(self) -> str:
        """Of the oracle."""
        return self.oracle.name

    @property
    def identity(self) -> str:
        """Everything that decides the numbers."""
        return f"{self.oracle.identity} without {self.dispersion.name}"

    def label(self, system: System) -> Labels:
        """Label one structure; raises what the oracle raises."""
        return self.dispersion.off(system, self.oracle.label(system))
