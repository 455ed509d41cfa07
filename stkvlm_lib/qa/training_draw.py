"""What is drawn for training: pictures, and of each the questions that are packed with it."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from sys import intern

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import View
from stkvlm_lib.grammar.families import pick
from stkvlm_lib.grammar.questions import FAMILIES, PRETRAINED, answer, ask_all, family_of
from stkvlm_lib.grammar.scene import COURSE_RULES, STRICT_RULES, Reason, Scene, mirror_box, read_scene
from stkvlm_lib.grammar.wordings import TASK_OF, ask_worded, unanswerable
from stkvlm_lib.grouping import by_turns
from stkvlm_lib.qa.drawn import DRAWN, DrawnPictures, TrainingPicture, write_drawn
from stkvlm_lib.qa.qa_sets import (
    COURSE,
    EXTENDED,
    TRAIN,
    Composition,
    QaError,
    Record,
    ordered,
    read_records,
    stream_records,
)

Pairs = list[tuple[str, str]]
"""(question, answer)"""


def draw_pictures(image_files: Iterable[str], n: int, seed: int) -> list[str]:
    """n picture names (all for n = 0), the same for any order; names may repeat."""
    names = sorted(set(image_files))
    random.Random(f"pictures-{seed}").shuffle(names)
    return sorted(names[: n or None])


def draw_races(tracks: Mapping[str, str], n: int, seed: int) -> set[str]:
    """n races (all for n = 0), every track in turn, so that a track has at most one more than another that has enough.

    tracks: each race's track. The races for a smaller n are among those for a larger one.
    """
    names = sorted(tracks)
    random.Random(f"races-{seed}").shuffle(names)
    return set(by_turns(names, tracks.__getitem__)[: n or None])


def draw_training(
    records: Iterable[Record],
    folder: FrameSet,
    *,
    views: int,
    per_view: int,
    mirror: bool,
    seed: int,
    extended: Iterable[Record] = (),
    extended_per_view: int = 0,
    worded_per_view: int = 0,
) -> Iterator[TrainingPicture]:
    """Pictures and questions for training, one by one, seeded per picture.

    records: of the ten forms, of which a picture keeps at most `per_view`. extended: of all families, of which it keeps
    at most `extended_per_view`, its families in turn. worded_per_view: questions in drawn words (`ask_worded`), with
    which go one that no picture answers and one for the task of a question, each in every second picture; they keep the
    adapter from unlearning the base's language. mirror: each picture comes a second time, mirrored, with the answers
    that the mirrored boxes give. Raises QaError for an extended question in a held-out wording.
    """
    groups = _pairs_by_picture(records)
    more = _trainable_pairs(extended) if extended_per_view else {}
    for name in draw_pictures(groups, views, seed):
        view = folder.by_image_file[name]
        sides = [(False, groups[name], more.get(name, []))]
        if mirror:
            mirrored_forms = [(question, told) for _, question, told in ask_all(read_scene(view, mirror_box))]
            sides.append((True, mirrored_forms, _mirrored_answers(view, more.get(name, []))))
        for mirrored, pairs, others in sides:
            rng = random.Random(f"questions-{seed}-{name}-{mirrored}")
            chosen = list(pairs) if len(pairs) <= per_view else rng.sample(pairs, per_view)
            chosen += _in_turn(others, extended_per_view, seed, name, mirrored)
            asked = [(family_of(question), question, told) for question, told in chosen]
            if worded_per_view:
                course, strict = (
                    read_scene(view, mirror_box if mirrored else None, rules) for rules in (COURSE_RULES, STRICT_RULES)
                )
                asked += _worded(strict, course, worded_per_view, random.Random(f"worded-{seed}-{name}-{mirrored}"))
            families, questions, answers = zip(*asked, strict=True)
            yield TrainingPicture(name, mirrored, questions, answers, families)


def draw_calibration(valid: Iterable[Record], folder: FrameSet, worded: int, seed: int) -> dict[str, Pairs]:
    """Valid questions by picture, with `worded` more of all families about each, in the wording of each that training
    never sees, as a person's own words are new: what confidence is fitted on."""
    groups = _pairs_by_picture(valid)
    for name, pairs in groups.items():
        scene = read_scene(folder.by_image_file[name], rules=STRICT_RULES)
        asked = ask_worded(scene, worded, random.Random(f"calibration-{seed}-{name}"))
        families = ((FAMILIES[each.family], each) for each in asked)
        pairs += [(family.write(family.held_out, each.names), each.answer) for family, each in families]
    return groups


def _worded(strict: Scene, course: Scene, n: int, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(family, question, answer)"""
    asked = ask_worded(strict, n, rng, course)
    if rng.random() < 0.5:
        asked.append(unanswerable(strict, rng))
    yield from ((worded.family, worded.question, worded.answer) for worded in asked)
    if asked and rng.random() < 0.5:
        worded = rng.choice(asked)
        yield TASK_OF, f"{TASK_OF} {worded.question}", worded.task


def _pairs_by_picture(records: Iterable[Record]) -> dict[str, Pairs]:
    """Question and answer alone, each text kept once, so that a million of them fit into memory."""
    groups: dict[str, Pairs] = defaultdict(list)
    for record in records:
        groups[record.image_file].append((intern(record.question), intern(record.answer)))
    return groups


def _trainable_pairs(records: Iterable[Record]) -> dict[str, Pairs]:
    def checked(record: Record) -> Record:
        if record.held_out:
            raise QaError(f"{record.image_file}: {record.question!r} has a wording that training must not see")
        return record

    return _pairs_by_picture(map(checked, records))


def _mirrored_answers(view: View, pairs: Pairs) -> Pairs:
    """The same questions with what the mirrored boxes answer, without those that they leave in doubt."""
    scene = read_scene(view, mirror_box, STRICT_RULES) if pairs else None
    told = ((question, answer(question, scene)) for question, _ in pairs)
    return [(question, said) for question, said in told if not isinstance(said, Reason)]


def _in_turn(pairs: Pairs, n: int, seed: int, name: str, mirrored: bool) -> Pairs:
    """n of them, one of each family before a second of any: families that ask much do not crowd out the others.

    What the base has never met comes first.
    """

    def key(pair: tuple[str, str]) -> tuple:
        new = family_of(pair[0]) not in PRETRAINED
        return not new, pick(1 << 64, "extended", seed, name, mirrored, pair[0]), pair

    ranked = sorted(pairs, key=key)
    return by_turns(ranked, lambda pair: family_of(pair[0]))[:n]


def read_questions(
    config: FinetuneConfig, folder: FrameSet, qa: Path | None = None
) -> tuple[DrawnPictures, list[Record]]:
    """What notebook 03 trains on and chooses the checkpoint by, drawn from the run's qa/train.jsonl and qa/valid.jsonl.

    What is drawn for training is written to the run's qa/train_drawn.jsonl and read from there. Without valid
    questions, or where valid is the only held-out split and so must stay unseen for scoring, the second is empty and
    the last checkpoint is kept. qa: another folder of these files, one that several runs share.
    """
    written = qa or config.run_path / "qa"
    train = written / COURSE.format(TRAIN)
    if not train.exists():
        raise QaError(
            f"{written}: no train questions (a folder of under three races, or without train/); nothing to train"
        )
    drawn = draw_training(
        _of_races(train, config.train_races, config.seed),
        folder,
        views=config.train_views,
        per_view=config.questions_per_view,
        mirror=config.mirror,
        seed=config.seed,
        extended=stream_records(written / EXTENDED.format(TRAIN)),
        extended_per_view=config.extended_per_view,
        worded_per_view=config.worded_per_view,
    )
    return write_drawn(drawn, config.run_path / "qa" / DRAWN), read_valid(config, written)


def read_valid(config: FinetuneConfig, qa: Path) -> list[Record]:
    """The questions that choose the checkpoint, see `read_questions`: of the ten forms about VALID_VIEWS pictures, and
    at most as many of families that the base has never met, which are learnt last and of which the ten forms tell
    nothing."""
    valid, test = (qa / COURSE.format(split) for split in ("valid", "test"))
    if not (valid.exists() and test.exists()):
        return []
    records = read_records(valid)
    names = set(draw_pictures((r.image_file for r in records), config.valid_views, config.seed))
    new = [r for r in _extended_of(qa, "valid") if r.family not in PRETRAINED and not r.held_out]
    most = min(len(new), config.valid_views or len(new)) if config.extended_per_view else 0
    new = sorted(random.Random(f"new-{config.seed}").sample(new, most), key=new.index)
    return [*(record for record in records if record.image_file in names), *new]


def _extended_of(qa: Path, split: str) -> Iterable[Record]:
    written = qa / EXTENDED.format(split)
    return stream_records(written) if written.exists() else ()


def _of_races(path: Path, n: int, seed: int) -> Iterator[Record]:
    """The records about n of a file's races, 0 for all."""
    if not n:
        return stream_records(path)
    drawn = draw_races({record.race: record.track for record in stream_records(path)}, n, seed)
    return (record for record in stream_records(path) if record.race in drawn)


def drawn_composition(pictures: Iterable[TrainingPicture]) -> Composition:
    """How often each answer of each family was drawn."""
    told = Counter(pair for p in pictures for pair in zip(p.families, p.answers, strict=True))
    return ordered(Counter({pair: n for pair, n in told.items() if pair[0] != TASK_OF}))
