"""The language for the game: what it writes means what its family asks, and nothing of it is a test's."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stkvlm_lib.grammar import wordings
from stkvlm_lib.grammar.families import COURSE
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grammar.scene import STRICT_RULES, Reason, Scene, read_scene
from stkvlm_lib.grammar.spelling import plain
from stkvlm_lib.grammar.wordings import (
    UNKNOWN,
    GrammarError,
    Language,
    ask_worded,
    common_words,
    fill,
    fingerprint,
    is_kept_back,
    language,
    misspelt,
    read_pattern,
    read_task,
    unanswerable,
)

OWN_WORDS = Path(__file__).parents[1] / "benchmarks" / "own_words.json"
DRAWS = 400
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def draws(name: str, n: int = DRAWS) -> list[str]:
    return [language().draw(name, random.Random(i)) for i in range(n)]


@every_family
def test_a_family_has_hundreds_of_wordings_with_its_places_and_no_others(family):
    drawn = draws(family.name)
    assert len(set(drawn)) > DRAWS / 2
    for wording in drawn:
        assert wording == plain(wording)
        assert sorted(set(word for word in wording.split() if word.startswith("{"))) == sorted(
            f"{{{slot}}}" for slot in family.slots
        )
    assert drawn[:5] == draws(family.name, 5)


def test_no_wording_is_drawn_for_two_families():
    """A slip of the keyboard may make one of another; what is spelled right may not."""
    owners: dict[str, set[str]] = {}
    for name in FAMILIES:
        for wording in set(draws(name, 1500)):
            owners.setdefault(wording, set()).add(name)
    assert {wording: names for wording, names in owners.items() if len(names) > 1} == {}


@every_family
def test_wordings_of_the_course_held_out_ones_and_those_of_tests_are_never_drawn(family):
    kept = {plain(family.wordings[family.held_out])}
    if family.group == COURSE:
        kept.add(plain(family.template))
    tests = json.loads(OWN_WORDS.read_text("utf-8")).get(family.name)
    assert tests, f"list wordings of {family.name} to test with in {OWN_WORDS.name}"
    kept |= set(map(plain, tests))
    lacking = [fingerprint(text) for text in kept if not is_kept_back(text)]
    assert not lacking, f"add to test_wordings.json, so that no training draws them: {lacking}"
    assert not kept & set(draws(family.name, 3000))


def test_every_test_question_that_nothing_answers_is_kept_back_too():
    texts = json.loads(OWN_WORDS.read_text("utf-8"))[UNKNOWN]
    assert len(texts) == 60
    assert all(is_kept_back(plain(text)) for text in texts)


def test_a_language_that_has_only_kept_wordings_says_so(monkeypatch):
    mine = Language({"parts": {"please": [""]}, "families": {"ego": ["who is me"]}, "unknown": {}})
    monkeypatch.setattr(wordings, "is_kept_back", lambda wording: True)
    with pytest.raises(GrammarError, match="ego: the language has no wording beside those kept for tests"):
        mine.draw("ego", random.Random(0))


def test_a_family_without_wordings_is_named_with_the_file_that_lacks_them():
    with pytest.raises(GrammarError, match=r"ego: no wordings .*`families` in .*wordings\.json"):
        Language({"parts": {}, "families": {}, "unknown": {}}).draw("ego", random.Random(0))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_it_asks_is_answered_by_the_family_as_the_scene_says(busy_scenes, seed):
    rng = random.Random(seed)
    scene = rng.choice(busy_scenes)
    asked = ask_worded(scene, 30, rng)
    assert len({(a.family, a.names) for a in asked}) == len(asked)
    for worded in asked:
        family = FAMILIES[worded.family]
        told = family.answer_about(scene, tuple(map(scene.find, worded.names)))
        assert family.besides.get(told, told) == worded.answer
        assert all(name in worded.question.split() for name in worded.names)
        assert "{" not in worded.question
        assert read_task(worded.task) == (worded.family, worded.names)
    nothing = unanswerable(scene, rng)
    assert (nothing.family, nothing.answer, nothing.names) == (UNKNOWN, UNKNOWN, ())
    assert nothing.question == plain(nothing.question) and read_task(nothing.task) is None


def test_families_come_in_turn_so_that_none_crowds_out_another(busy_scenes):
    for scene in busy_scenes[:20]:
        names = [asked.family for asked in ask_worded(scene, 8, random.Random(1))]
        assert len(set(names)) == len(names)


def test_what_the_base_has_never_met_comes_first(busy_scenes):
    first = [ask_worded(scene, 1, random.Random(1))[0].family for scene in busy_scenes]
    new = [family for family in FAMILIES.values() if not family.pretrained]
    can = [any(not isinstance(told, Reason) for f in new for _, told in f.about(scene)) for scene in busy_scenes]
    assert [not FAMILIES[family].pretrained for family in first] == can and True in can


def test_what_strict_rules_decline_is_answered_by_others_in_the_courses_families_and_in_those_new_to_the_base(
    busy_scenes, bundled
):
    asked, besides = set(), set()
    for view in list(bundled.views("valid"))[:60]:
        strict, course = read_scene(view, rules=STRICT_RULES), read_scene(view)
        for worded in ask_worded(strict, 60, random.Random(view.image_file), course):
            family = FAMILIES[worded.family]
            told = [family.answer_about(scene, tuple(map(scene.find, worded.names))) for scene in (strict, course)]
            clear = [family.besides.get(answer, answer) for answer in told]
            if isinstance(clear[0], Reason):
                assert family.always_told and worded.answer == clear[1]
                asked.add(worded.family)
            else:
                assert worded.answer == clear[0]
            if told[0] in family.besides:
                besides.add((worded.family, worded.answer))
    assert asked >= {"count", "where", "count_front", "clock"}
    assert besides >= {("count_left", "0"), ("count_behind", "0"), ("kart_colour", UNKNOWN), ("ego_colour", UNKNOWN)}


def test_nothing_unanswerable_is_about_a_kart_in_view_alone():
    said = [language().unanswerable(random.Random(i), ["tux"]) for i in range(DRAWS)]
    assert len(set(said)) > DRAWS / 2
    assert any("tux" in text.split() for text in said)


def test_it_may_be_about_a_kart_of_the_race_that_the_game_does_not_have():
    scene = Scene("abyss", (), None, line_up=("truck-7", "My racer"))
    said = " ".join(unanswerable(scene, random.Random(i)).question for i in range(DRAWS))
    assert {"truck_7", "my_racer"} <= set(said.split())


def test_common_words_are_none_of_the_games():
    assert len(common_words()) > 1500
    assert not {"kart", "left", "ego", "tux", "colour"} & set(common_words())


def test_a_slip_of_the_keyboard_changes_one_word_and_no_name():
    text = "where is {kart} compared to sara_the_racer tux"
    for seed in range(200):
        slipped = misspelt(text, random.Random(seed)).split()
        same = [a == b for a, b in zip(slipped, text.split(), strict=True)]
        assert same.count(False) <= 1 and same[2] and same[5:] == [True, True]
    assert misspelt("is it tux", random.Random(0)) == "is it tux"


@pytest.mark.parametrize("text", ["(a|b", "a|b", "a)", "<a", "a>b"])
def test_a_pattern_that_cannot_be_read_is_shown(text):
    with pytest.raises(GrammarError) as error:
        read_pattern(text)
    assert str(error.value).startswith(f"{text!r}: ")


def test_an_unknown_part_is_named():
    with pytest.raises(GrammarError, match="<krt>: there is no such part"):
        Language({"parts": {"please": [""]}, "families": {"ego": ["<krt>"]}}).draw("ego", random.Random(0))


def test_names_are_filled_in_by_place():
    assert fill("is {b} behind {a}", {"a": "tux", "b": "gnu"}) == "is gnu behind tux"


def test_a_task_is_read_back():
    assert read_task("left_of tux gnu") == ("left_of", ("tux", "gnu"))
    assert read_task("left_of tux") is read_task("") is read_task("nonsense") is read_task(UNKNOWN) is None


def test_fingerprints_tell_wordings_apart():
    assert fingerprint("a") != fingerprint("b") and len(fingerprint("a")) == 12
    assert KARTS
