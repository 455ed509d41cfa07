import pytest

from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, FAMILIES, PRETRAINED, answer, ask_all, read_question
from stkvlm_lib.grammar.scene import COURSE_RULES, STRICT_RULES, Reason, mirror_box, read_scene
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import TASK_OF, UNKNOWN
from stkvlm_lib.qa.qa_sets import QaError, read_records
from stkvlm_lib.qa.training_draw import (
    draw_calibration,
    draw_pictures,
    draw_races,
    draw_training,
    drawn_composition,
    read_questions,
    read_valid,
)


def drawn_list(*args, **settings):
    return list(draw_training(*args, **settings))


def test_draws_do_not_depend_on_the_order_of_records(bundled, records):
    settings = {"views": 20, "per_view": 4, "mirror": True, "seed": 3}
    drawn = drawn_list(records, bundled, **settings)
    by_name = sorted(records, key=lambda r: r.image_file, reverse=True)
    shuffled = [r for name in dict.fromkeys(r.image_file for r in by_name) for r in records if r.image_file == name]
    assert drawn_list(shuffled, bundled, **settings) == drawn
    assert drawn_list(records, bundled, **{**settings, "seed": 4}) != drawn
    assert len(drawn) == 40 and max(len(p.questions) for p in drawn) == 4
    assert len(draw_pictures([r.image_file for r in records], 0, 0)) == len({r.image_file for r in records})


def test_mirrored_pictures_carry_the_answers_of_mirrored_boxes(bundled, records):
    drawn = drawn_list(records, bundled, views=0, per_view=100, mirror=True, seed=0)
    mirrored = [p for p in drawn if p.mirrored]
    assert len(mirrored) == len(drawn) / 2
    for item in mirrored[:40]:
        scene = read_scene(bundled.by_image_file[item.image_file], mirror_box)
        assert list(zip(item.questions, item.answers, strict=True)) == [(q, a) for _, q, a in ask_all(scene)]
    plain = {p.image_file: dict(zip(p.questions, p.answers, strict=True)) for p in drawn if not p.mirrored}
    swapped = [
        (plain[p.image_file].get(q), a)
        for p in mirrored
        for q, a in zip(p.questions, p.answers, strict=True)
        if "left or right" in q
    ]
    assert sum({before, after} == {"left", "right"} for before, after in swapped) > 0.9 * len(swapped)


@pytest.fixture(scope="module")
def extended(written):
    return read_records(written[0] / "train_extended.jsonl")


@pytest.fixture(scope="module")
def drawn(written, bundled, extended):
    records = read_records(written[0] / "train.jsonl")
    settings = {"views": 0, "per_view": 5, "mirror": True, "seed": 0}
    return drawn_list(records, bundled, **settings, extended=extended, extended_per_view=4)


def test_extended_questions_come_after_the_ten_forms_and_change_nothing_of_them(written, bundled, drawn):
    records = read_records(written[0] / "train.jsonl")
    alone = drawn_list(records, bundled, views=0, per_view=5, mirror=True, seed=0)
    for more, fewer in zip(drawn, alone, strict=True):
        n = len(fewer.questions)
        assert (more.image_file, more.mirrored) == (fewer.image_file, fewer.mirrored)
        assert more.questions[:n] == fewer.questions and more.answers[:n] == fewer.answers
        assert len(more.questions) <= n + 4
    assert drawn_composition(drawn).keys() - drawn_composition(alone).keys() >= {"in_view", "left_of"}


def test_extended_answers_are_those_of_the_picture_or_its_mirror_image(bundled, drawn):
    mirrored, changed = 0, 0
    for picture in drawn:
        view = bundled.by_image_file[picture.image_file]
        plain = read_scene(view, rules=STRICT_RULES)
        scene = read_scene(view, mirror_box, STRICT_RULES) if picture.mirrored else plain
        for question, told in list(zip(picture.questions, picture.answers, strict=True))[5:]:
            assert answer(question, scene) == told
            mirrored += picture.mirrored
            changed += picture.mirrored and answer(question, plain) != told
    assert mirrored > 100 and changed > 5


def test_one_family_does_not_crowd_out_the_others(bundled, extended):
    name = max({r.image_file for r in extended}, key=lambda n: len({r.family for r in extended if r.image_file == n}))
    mine = [r for r in extended if r.image_file == name]
    records = [r for r in mine if r.family == "track"]
    families = len({r.family for r in mine})
    settings = {"views": 0, "per_view": 0, "mirror": False, "seed": 1}
    (picture,) = drawn_list(records, bundled, **settings, extended=mine, extended_per_view=families)
    assert families > 4 and len({read_question(q)[0] for q in picture.questions}) == families


def test_held_out_wordings_never_reach_training(written, bundled, drawn, extended):
    """Neither from the files, where train has none, nor by handing over those of another split."""
    assert extended and not any(record.held_out for record in extended)
    for picture in drawn:
        for question in picture.questions:
            family, wording, _ = read_question(question)
            assert wording < FAMILIES[family].held_out
    test = read_records(written[0] / "test_extended.jsonl")
    assert sum(record.held_out for record in test) > 0.1 * len(test)
    with pytest.raises(QaError, match="training must not see"):
        settings = {"views": 0, "per_view": 5, "mirror": True, "seed": 0}
        drawn_list(read_records(written[0] / "test.jsonl"), bundled, **settings, extended=test, extended_per_view=1)


RACES = {"abyss": 5, "hacienda": 5, "zengarden": 2}
TRACKS = {f"{track}{n}": track for track, races in RACES.items() for n in range(races)}


def test_fewer_races_are_among_more_and_every_track_has_its_turn():
    before = set()
    for n in range(1, 7):
        races = draw_races(TRACKS, n, 0)
        assert len(races) == n and before < races
        counts = [sum(TRACKS[race] == track for race in races) for track in set(TRACKS.values())]
        assert max(counts) - min(counts) <= 1
        before = races
    assert len(draw_races(TRACKS, 9, 0) - draw_races(TRACKS, 6, 0)) == 3, "where a track has no more, the others go on"
    assert draw_races(TRACKS, 0, 0) == set(TRACKS)


def test_the_seed_draws_the_races_whatever_their_order():
    assert draw_races(dict(reversed(TRACKS.items())), 4, 0) == draw_races(TRACKS, 4, 0)
    assert len({frozenset(draw_races(TRACKS, 3, seed)) for seed in range(8)}) > 4


def test_only_the_drawn_races_are_trained_on(written, bundled, tmp_path):
    """Of their pictures the same questions as among all races; the valid questions stay."""
    all_of, (train, valid) = (
        read_questions(FinetuneConfig(run_dir=str(tmp_path / str(n)), train_races=n), bundled, written[0])
        for n in (0, 4)
    )
    views = [bundled.by_image_file[picture.image_file] for picture in train]
    assert len({view.frame.race for view in views}) == len({view.frame.track for view in views}) == 4
    assert len(train) < len(all_of[0]) and set(train) <= set(all_of[0])
    assert valid == all_of[1]


def test_drawn_words_go_with_the_questions_and_follow_from_the_seed(bundled, written):
    records = read_records(written[0] / "train.jsonl")
    settings = {"views": 0, "per_view": 5, "mirror": True, "seed": 3}
    alone = drawn_list(records, bundled, **settings)
    drawn = drawn_list(records, bundled, **settings, worded_per_view=3)
    shuffled = sorted(records, key=lambda record: record.image_file, reverse=True)
    assert drawn_list(shuffled, bundled, **settings, worded_per_view=3) == drawn
    for bare, picture in zip(alone, drawn, strict=True):
        n = len(bare.questions)
        assert picture.questions[:n] == bare.questions
        assert len(picture.questions) == len(picture.families) <= n + 5
        view, flip = bundled.by_image_file[picture.image_file], mirror_box if picture.mirrored else None
        scenes = [read_scene(view, flip, rules) for rules in (STRICT_RULES, COURSE_RULES)]
        for question, told, family in list(zip(picture.questions, picture.answers, picture.families, strict=True))[n:]:
            assert family in {*FAMILIES, UNKNOWN, TASK_OF}
            if family not in (TASK_OF, "ego_colour", "kart_colour"):
                assert (told == UNKNOWN) == (family == UNKNOWN)
            if family in ("ego", "track", "count"):
                answers = [FAMILIES[family].answer_about(scene, ()) for scene in scenes]
                assert told == next(answer for answer in answers if not isinstance(answer, Reason))
            assert question == plain(question)
    families = drawn_composition(drawn)
    assert UNKNOWN in families and TASK_OF not in families


def test_confidence_is_fitted_on_valid_questions_and_drawn_words(bundled, written):
    records = read_records(written[0] / "train.jsonl")
    asked = draw_calibration(records, bundled, 4, 0)
    assert asked.keys() == {record.image_file for record in records}
    own = {name: sum(record.image_file == name for record in records) for name in asked}
    assert all(own[name] < len(pairs) <= own[name] + 4 for name, pairs in asked.items())
    assert draw_calibration(records, bundled, 4, 0) == asked != draw_calibration(records, bundled, 4, 1)


def test_what_the_base_has_never_met_helps_to_choose_the_checkpoint(written):
    """But not in the wording that training leaves out, and not where it is not trained."""
    valid = read_valid(FinetuneConfig(), written[0])
    new = [record for record in valid if record.family not in COURSE_FAMILIES]
    assert {record.family for record in new} == FAMILIES.keys() - PRETRAINED and not any(r.held_out for r in new)
    assert read_valid(FinetuneConfig(extended_per_view=0), written[0]) == [r for r in valid if r not in new]
    one = read_valid(FinetuneConfig(valid_views=1), written[0])
    assert len([record for record in one if record in new]) == 1
