"""What each family can be guessed at without the picture: three guessers that learn from train, measured on held-out.

`majority` always gives the family's most frequent answer, `track` the most frequent one on that track, and `words`
(a linear classifier over the words of a question, one a family) the likeliest for the wording. Questions are counted,
not kept, so files of any size will do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

from stkvlm_lib.grammar.questions import FAMILIES, normalise
from stkvlm_lib.number_text import percent
from stkvlm_lib.qa.qa_sets import Record

Asked = Counter[tuple[str, str, str]]
"""{(question, track, answer): number} of one family"""


@dataclass(frozen=True)
class Guess:
    """Shares (0..1) of a family's held-out questions that guessing answers right.

    n: held-out questions; answers: how many there are in train; uniform: what rolling a die over them would reach.
    track: None for the family that asks for the track.
    """

    family: str
    n: int
    answers: int
    uniform: float
    majority: float
    track: float | None
    words: float

    @property
    def best(self) -> float:
        """The best of the guessers: what answers must beat to have used the picture."""
        return max(self.majority, self.track or 0, self.words)

    def row(self) -> dict:
        """A line of a table."""
        shares = {"rolling a die": self.uniform, "most frequent": self.majority, "by track": self.track}
        shares |= {"by words": self.words, "best guess": self.best}
        texts = {name: percent(share) for name, share in shares.items()}
        return {"family": self.family, "n": self.n, "answers": self.answers, **texts}


def guesses(train: Iterable[Record], held_out: Iterable[Record]) -> list[Guess]:
    """One a family that occurs in both, in the families' order; the same for any order of the records."""
    learnt, scored = _counted(train), _counted(held_out)
    return [_guess(name, learnt[name], scored[name]) for name in FAMILIES if name in learnt and name in scored]


def _counted(records: Iterable[Record]) -> dict[str, Asked]:
    counts: dict[str, Asked] = defaultdict(Counter)
    for record in records:
        counts[record.family][record.question, record.track, normalise(record.answer)] += 1
    return counts


def _guess(family: str, train: Asked, held_out: Asked) -> Guess:
    overall, by_track = Counter(), defaultdict(Counter)
    for (_, track, answer), n in train.items():
        overall[answer] += n
        by_track[track][answer] += n
    majority = most_frequent(overall)
    on_track = {track: most_frequent(answers) for track, answers in by_track.items()}
    says = _word_guesser(train, {question for question, _, _ in held_out})
    return Guess(
        family,
        n=held_out.total(),
        answers=len(overall),
        uniform=1 / len(overall),
        majority=_share(held_out, lambda question, track: majority),
        track=None if family == "track" else _share(held_out, lambda question, track: on_track.get(track, majority)),
        words=_share(held_out, lambda question, track: says[question]),
    )


def most_frequent(counts: Counter[str]) -> str:
    """The most frequent answer, the first in the alphabet among equals."""
    return min(counts, key=lambda answer: (-counts[answer], answer))


def _share(held_out: Asked, guess) -> float:
    """How many questions `guess(question, track)` answers right."""
    right = sum(n for (question, track, answer), n in held_out.items() if guess(question, track) == answer)
    return right / held_out.total()


def _word_guesser(train: Asked, questions: Iterable[str]) -> dict[str, str]:
    """The likeliest answer to each question by logistic regression over words and pairs of words, fitted on train."""
    counts = Counter()
    for (question, _, answer), n in train.items():
        counts[question, answer] += n
    pairs = sorted(counts)
    wordings, answers = zip(*pairs, strict=True)
    asked = sorted(questions)
    if len(set(answers)) == 1:
        return dict.fromkeys(asked, answers[0])
    from sklearn.feature_extraction.text import CountVectorizer  # takes a second to import, and only this needs it
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(token_pattern=r"\w+", binary=True, ngram_range=(1, 2))
    model = LogisticRegression(max_iter=1000)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # each pair stands here once, with its weight: too few, it thinks
        model.fit(words.fit_transform(wordings), answers, sample_weight=[counts[pair] for pair in pairs])
    return dict(zip(asked, map(str, model.predict(words.transform(asked))), strict=True))
