"""Labels that no answer of a model can match, or that count more than once: found when the questions were answered."""

from dataclasses import dataclass
from typing import Any, ClassVar

from stkvlm_lib.analysis.scored_run import Analysis, ScoredRun
from stkvlm_lib.analysis.sections import Section, table

TEXT = (
    "Faults in the labels of the questions scored: no answer of a model can match them, or they count more than once. "
    "The scores above count these questions as they stand."
)


@dataclass(frozen=True)
class LabelFaults(Analysis):
    """rows: of the table that `qa.label_faults` makes, which needs the questions' files."""

    KEY: ClassVar[str] = "label_faults"
    WHOLE: ClassVar[str] = "rows"

    rows: list[dict[str, Any]]

    @classmethod
    def measure(cls, run: ScoredRun) -> None:
        return None

    def section(self, run: ScoredRun) -> Section | None:
        shown = table({name: str(value) for name, value in row.items()} for row in self.rows)
        return Section("Labels that cannot be scored", TEXT, table=shown) if shown else None
