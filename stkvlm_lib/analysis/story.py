"""All analyses of a run in the order in which they are told: measured once, shown by notebook and report alike.

A new analysis is a module of its own and a line here.
"""

from typing import Any

from stkvlm_lib.analysis.accuracy import Accuracy
from stkvlm_lib.analysis.calibration import Calibration
from stkvlm_lib.analysis.ceiling import Ceiling
from stkvlm_lib.analysis.comparison import Comparison
from stkvlm_lib.analysis.confusion import Confusions
from stkvlm_lib.analysis.consistency import Consistency
from stkvlm_lib.analysis.entailed import Entailed
from stkvlm_lib.analysis.error_budget import ErrorBudget
from stkvlm_lib.analysis.errors import Errors, LabelFaults
from stkvlm_lib.analysis.further_sets import Extended, MultipleChoice, UnseenLineUps
from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section
from stkvlm_lib.analysis.slices import Slices
from stkvlm_lib.analysis.wordings import HeldOutWordings, OwnWords
from stkvlm_lib.figures import display
from stkvlm_lib.figures.style import save

ANALYSES: tuple[type[Analysis], ...] = (
    Accuracy,
    LabelFaults,
    Confusions,
    Slices,
    ErrorBudget,
    Errors,
    Ceiling,
    Calibration,
    Extended,
    HeldOutWordings,
    OwnWords,
    Consistency,
    Entailed,
    MultipleChoice,
    UnseenLineUps,
    Comparison,
)


class Story:
    """The analyses of a run, each made once and its figures saved in the run folder."""

    def __init__(self, run: ScoredRun):
        self.run = run
        self._told: dict[type[Analysis], Section | None] = {}

    def section(self, kind: type[Analysis]) -> Section | None:
        """One analysis as it is shown; None where the run has nothing of it."""
        if kind not in self._told:
            figures = self.run.figures(kind)
            self._told[kind] = found = figures.section(self.run) if figures else None
            for shown in found.figures if found else ():
                if not isinstance(shown.figure, bytes):
                    save(shown.figure, self.run.folder / "figures" / f"{shown.name}.png")
        return self._told[kind]

    @property
    def sections(self) -> list[Section]:
        """All analyses that have something to show, in their order."""
        return [found for kind in ANALYSES if (found := self.section(kind))]

    def show(self, kind: type[Analysis]) -> None:
        """One analysis below a notebook's cell; its heading stands in the notebook."""
        display.section(self.section(kind), kind.NONE)


def measure(run: ScoredRun) -> dict[str, Any]:
    """The figures of all analyses as metrics.json holds them: those that the run has, and those it lacks measured."""
    metrics = dict(run.metrics)
    for kind in ANALYSES:
        if figures := run.figures(kind):
            metrics |= figures.into_metrics()
    return metrics
