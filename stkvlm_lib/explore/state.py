"""What the explorer shows, without a widget: which views pass the filters, which is on show, what is known of it.

The questions of a view are rows of a table, which can be searched, sorted and saved.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from stkvlm_lib.config import did_you_mean
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.explore.asking import Beside, by_question
from stkvlm_lib.explore.filters import IN_FILE_ORDER, ORDERS, Given, make_facets, urgency
from stkvlm_lib.explore.links import Place
from stkvlm_lib.explore.own_picture import shape_told
from stkvlm_lib.figures.drawing import TOO_SMALL, marks
from stkvlm_lib.grammar.scene import Kart, depth, read_scene, side
from stkvlm_lib.qa.qa_sets import Record, by_picture

NOTHING_LEFT = "No question passes all of these filters. Set one of them back to “all”, or clear them."
AS_FILTERED = "as filtered"
SORTS: dict[str, Callable[["Row"], object]] = {
    "by question": lambda row: row.record.question,
    "by label": lambda row: (row.record.answer, row.record.question),
    "surest first": lambda row: -(row.confidence or 0.0),
    "least sure first": lambda row: 2.0 if row.confidence is None else row.confidence,
}
"""How the table of a view's questions can be sorted, beside the order that filters and order of the views give."""


@dataclass(frozen=True)
class Row:
    """One question of the view on show. matches: whether it passes the filters; chosen: whether it is looked at; other:
    the answer that stands beside its own."""

    record: Record
    prediction: str | None
    correct: bool | None
    confidence: float | None
    matches: bool
    chosen: bool = False
    other: Given | None = None


class ExplorerState:
    """Which views pass the filters, in which order, and which of them is on show.

    Views with at least one matching question are stepped through.
    Raises ValueError when no record is about a picture of `frames`.
    """

    def __init__(
        self,
        frames: FrameSet,
        records: Iterable[Record],
        predictions: Iterable[Given] = (),
        seed: int = 0,
        beside: Beside | None = None,
    ):
        self._frames = frames
        records = list(records)
        self._groups = {name: rows for name, rows in by_picture(records).items() if name in frames.by_image_file}
        if records and not self._groups:
            raise ValueError(f"{frames.root}: holds none of the records' pictures; give the folder they were made of")
        self._predictions = by_question(predictions)
        self.beside = beside if beside and beside.answers else None
        """Whose answers stand beside the run's own."""
        self._rng = random.Random(seed)
        self._records = [record for rows in self._groups.values() for record in rows]
        self._number = {name: number for number, name in enumerate(self._groups)}
        self._view_of = np.array([self._number[r.image_file] for r in self._records], dtype=int)
        scenes = {name: read_scene(frames.by_image_file[name]) for name in self._groups}
        self._facets = make_facets(
            (record, scenes[record.image_file], self._prediction(record), self._other(record))
            for record in self._records
        )
        given = [self._prediction(record) for record in self._records]
        self._urgency = {order: np.array([urgency(order, p) for p in given], dtype=float) for order in ORDERS}
        self.filters: dict[str, str] = {}
        """Filter -> the option that a question must match to count; those that are off are not in it."""
        self.home: dict[str, str] = {}
        """The filters that `reset` goes back to."""
        self.order = IN_FILE_ORDER
        self.own: View | None = None
        """A picture of the reader's own, on show until the next step, see `own_picture`."""
        self.index = 0
        self.chosen, self._chosen_of = "", ""
        """The question looked at, and the picture on show when it was chosen."""
        self._select()

    @property
    def has_predictions(self) -> bool:
        return bool(self._predictions)

    def _prediction(self, record: Record) -> Given | None:
        return self._predictions.get((record.image_file, record.question))

    def _other(self, record: Record) -> Given | None:
        return self.beside and self.beside.answers.get((record.image_file, record.question))

    def options(self, name: str) -> list[str]:
        """The values a filter can take, as they occur in the records."""
        return self._facets[name].options

    def counts(self, name: str) -> dict[str, int]:
        """Option of a filter -> the questions it would leave, the other filters staying as they are."""
        facet = self._facets[name]
        return dict(zip(facet.options, facet.counts(self._passing(but=name)), strict=True))

    def set_filters(self, **values: str) -> None:
        """Change some filters, "" for off; the view on show stays if it still matches."""
        self.own = None
        before = self.view
        self.filters = {name: value for name, value in (self.filters | values).items() if value}
        self._select()
        self.index = self._names.index(before.image_file) if before and before.image_file in self._names else 0

    def set_order(self, order: str) -> None:
        """One of ORDERS; begins at its first view."""
        self.order = order
        self._select()
        self.index = 0

    def reset(self) -> None:
        """Filters and order as at the beginning; the view on show stays if it still matches."""
        self.order, self.filters = IN_FILE_ORDER, {}
        self.set_filters(**self.home)

    def _passing(self, but: str = "") -> np.ndarray:
        """(records,) bool: which pass all filters, one left out."""
        passing = np.ones(len(self._records), bool)
        for name, value in self.filters.items():
            if name != but:
                passing &= self._facets[name].matches(value)
        return passing

    def _select(self) -> None:
        self.own = None
        self._passes = self._passing()
        self.n_questions = int(self._passes.sum())
        views = self._view_of[self._passes]
        first = np.full(len(self._number), np.inf)
        np.minimum.at(first, views, self._urgency[self.order][self._passes])
        left = np.unique(views)
        names = list(self._number)
        self._names = [names[number] for number in left[np.argsort(first[left], kind="stable")]]

    def __len__(self) -> int:
        """How many views pass the filters."""
        return len(self._names)

    def next(self) -> None:
        self.jump(self.index + 1)

    def previous(self) -> None:
        self.jump(self.index - 1)

    def random(self) -> None:
        """Another view than the one on show, the same sequence for the same seed."""
        if len(self) > 1:
            self.jump(self.index + self._rng.randrange(1, len(self)))

    def jump(self, index: int) -> None:
        """Show the index-th view (from 0); counting goes round at both ends."""
        self.own = None
        self.index = index % len(self) if len(self) else 0

    def find(self, wanted: str) -> None:
        """Show the view of that number (from 1), or the first whose picture's name holds that text.

        Raises ValueError when there is none among those that pass the filters.
        """
        wanted = wanted.strip()
        if wanted.isdecimal() and 1 <= int(wanted) <= len(self):
            self.jump(int(wanted) - 1)
            return
        is_text = not wanted.isdecimal() or len(wanted) >= 5  # frames are numbered with five digits
        index = next((i for i, name in enumerate(self._names) if is_text and wanted in name), None)
        if index is None:
            found = is_text and any(wanted in name for name in self._number)
            hint = "; the filters leave that picture out, clear them to see it" if found else ""
            raise ValueError(
                f"“{wanted}”: no such number or picture among the {len(self):,} views that pass the filters{hint}"
            )
        self.jump(index)

    def open(self, picture: str, question: str = "") -> None:
        """Show the picture of that name, or the first whose name holds that text; a question about it is chosen.

        Filters that leave it out give way to its split. Raises ValueError when no record is about such a picture.
        """
        name = find_picture(picture, self._number)
        if name not in self._names:
            self.filters = {"split": self._groups[name][0].split}
            self._select()
        self.jump(self._names.index(name))
        self.choose(question)

    def choose(self, question: str) -> None:
        """Look at a question, whoever has asked it."""
        self.chosen, self._chosen_of = question, self.view.image_file if self.view else ""

    def link(self) -> Place:
        """What opens the explorer here again: the picture, and the question looked at where it is one about it."""
        if not self.view or self.own:
            return Place()
        name = self.view.image_file
        is_about_it = name == self._chosen_of or any(row.chosen for row in self.rows())
        return Place(name, self.chosen if is_about_it else "")

    @property
    def view(self) -> View | None:
        """The view on show, None when the filters leave nothing."""
        if self.own:
            return self.own
        return self._frames.by_image_file[self._names[self.index]] if self._names else None

    def passing_rows(self) -> list[Row]:
        """All questions that pass the filters, view after view as they are stepped through."""
        place = {self._number[name]: index for index, name in enumerate(self._names)}
        numbers = sorted(np.flatnonzero(self._passes), key=lambda number: place[self._view_of[number]])
        return [self._row(self._records[number], True) for number in numbers]

    def rows(self) -> list[Row]:
        """All questions of the view on show, those that pass the filters first, then by the order."""
        if not self.view or self.own:
            return []
        name = self.view.image_file
        numbers = np.flatnonzero(self._view_of == self._number[name])
        first = sorted(numbers, key=lambda number: (not self._passes[number], self._urgency[self.order][number]))
        return [self._row(self._records[number], bool(self._passes[number])) for number in first]

    def _row(self, record: Record, matches: bool) -> Row:
        p = self._prediction(record)
        given = (p.prediction, p.correct, p.confidence) if p else (None, None, None)
        return Row(record, *given, matches, record.question == self.chosen, self._other(record))

    def position(self) -> str:
        """Where we are, e.g. `View 12 of 480 · 3,826 matching questions`."""
        if not self.view:
            return NOTHING_LEFT
        if self.own:
            return "Your own picture; any step goes back to the others"
        n = f"{self.n_questions:,} matching question{'s' if self.n_questions != 1 else ''}"
        return f"View {self.index + 1:,} of {len(self):,} · {n}"

    def place(self) -> str:
        """Which picture this is: file, track, and the seed that its race is drawn from, where it is known."""
        if not self.view:
            return ""
        if self.own:
            told = "Ask about it in the tab Ask; it is kept until the explorer is closed."
            return " ".join(filter(None, (told, shape_told(*self.own.image().size))))
        frame = self.view.frame
        _, is_seed, seed = frame.race.rpartition("race-")
        told = f"{self.view.image_file} · track {frame.track}"
        return f"{told} · race seed {seed}" if is_seed else told

    def description(self) -> str:
        """What the picture shows under the labelling rule, for readers who cannot see it."""
        if not self.view:
            return ""
        if self.own:
            return "A picture of your own: nothing is known of what it shows."
        scene = read_scene(self.view)
        if not scene.ego:
            return f"Track {scene.track}. No kart is large enough to count."
        others = "; ".join(f"{kart.name} is {_whereabouts(kart, scene.ego)}" for kart in scene.others)
        small = ", ".join(mark.name for mark in marks(self.view) if mark.role == TOO_SMALL)
        said = [f"Track {scene.track}. The ego kart is {scene.ego.name}.", f"{others or 'No other kart counts'}."]
        return " ".join([*said, f"Too small to count: {small}."] if small else said)


def row_json(row: Row) -> dict:
    """A question as a line of a file: the record with what was answered, where it was."""
    line = asdict(row.record)
    if row.prediction is not None:
        line |= {"prediction": row.prediction, "correct": row.correct, "confidence": row.confidence}
    if row.other:
        line |= {"other_prediction": row.other.prediction, "other_correct": row.other.correct}
    return line


def find_rows(rows: Iterable[Row], text: str) -> list[Row]:
    """Those whose question, label or answer holds a text, in upper or lower case."""
    wanted, found = text.strip().casefold(), []
    for row in rows:
        answers = row.record.answer, row.prediction or "", row.other.prediction if row.other else ""
        if any(wanted in said.casefold() for said in (row.record.question, *answers)):
            found.append(row)
    return found


def find_picture(wanted: str, names: Iterable[str]) -> str:
    """The picture of that name, or the first whose name holds that text. Raises ValueError where there is none."""
    names = list(names)
    found = wanted if wanted in names else next((name for name in names if wanted in name), None)
    if found is None:
        meant = did_you_mean(wanted, names)
        raise ValueError(f"“{wanted}”: no such picture among the {len(names):,} that there are questions about{meant}")
    return found


def _whereabouts(kart: Kart, ego: Kart) -> str:
    return f"{'in front' if depth(kart, ego) == 'front' else 'behind'} and to the {side(kart, ego)}"
