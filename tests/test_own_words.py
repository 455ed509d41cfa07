"""Wordings that no training has seen: read, asked about the same as the templates, and scored by themselves."""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hand_made import scored_run
from tiny import prediction as row

from stkvlm_lib.analysis import wordings as analysis
from stkvlm_lib.config import ConfigError, ScoreConfig
from stkvlm_lib.evaluation.asking import predict
from stkvlm_lib.evaluation.own_words import (
    DrawnViews,
    OwnWords,
    draw_pairs,
    draw_unanswerable,
    questions,
    read_own_words,
)
from stkvlm_lib.evaluation.predictions import further_file, write_answers
from stkvlm_lib.grammar.questions import FAMILIES, OTHER, answer
from stkvlm_lib.grammar.scene import STRICT_RULES, read_scene
from stkvlm_lib.grammar.wordings import UNKNOWN
from stkvlm_lib.parameters import make_config
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError, Record
from stkvlm_lib.vlm.answering import Answer
from stkvlm_lib.vlm.features import FeatureStore

WORDS = {
    "ego": ["who are we driving as", "name our kart"],
    "left_of": ["would you say {b} has {a} on its left"],
    "unknown": ["will it rain", "is mario in view"],
}


@pytest.fixture
def config(tmp_path):
    """A run with a file of own words."""
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    return ScoreConfig(run_dir=str(tmp_path / "run"), own_words_file=str(tmp_path / "words.json"), bootstrap=100)


@pytest.fixture(scope="module")
def scored(bundled):
    """The questions of the test split, as far as they matter here: their pictures."""
    views = bundled.views("test")
    return [Record(v.image_file, "", "", "", "test", v.frame.race, v.frame.frame_id, v.index, "") for v in views]


@pytest.fixture(scope="module")
def names(scored):
    return [record.image_file for record in scored]


@pytest.fixture(scope="module")
def views(bundled, names):
    return DrawnViews(bundled, names, 0)


class Parrot:
    """Right in the template, `unknown` to whatever holds `mario` or `our`, wrong to all else."""

    device, adapter_sees = "cpu", False

    def __init__(self, truth):
        self.truth = truth

    def encode(self, images):
        import torch

        return torch.zeros(len(images), 1, 1)

    def answer_encoded(self, features, questions):
        return [[self._answer(question) for question in group] for group in questions]

    def without_adapter(self):
        return nullcontext()

    def _answer(self, question):
        unknown = "mario" in question or "our" in question.split()
        return Answer("Unknown" if unknown else self.truth.get(question, "wrong"), 0.5)


def test_each_wording_is_asked_about_drawn_pictures_with_their_strict_truth(views, bundled, config):
    words = read_own_words(config)
    pairs = draw_pairs(views, words, 3)
    assert Counter(own.family for own, _ in pairs) == {"ego": 6, "left_of": 3}
    assert len({own.image_file for own, _ in pairs if own.family == "ego"}) == 6
    for own, template in pairs:
        family = FAMILIES[own.family]
        assert (own.image_file, own.answer, own.race) == (template.image_file, template.answer, template.race)
        assert template.wording == 0 and own.wording >= len(family.wordings)
        assert (own.split, own.rules) == ("test", STRICT_RULES.name)
        scene = read_scene(bundled.by_image_file[own.image_file], rules=STRICT_RULES)
        assert answer(template.question, scene) == own.answer
    own, template = pairs[-1]
    a, b = FAMILIES["left_of"].read(template.question.lower().rstrip("?"))[1]
    assert own.question == f"would you say {b} has {a} on its left"


def test_the_draw_follows_from_the_seed_and_not_from_the_order_of_the_pictures(views, bundled, names, config):
    words = read_own_words(config)
    turned = draw_pairs(DrawnViews(bundled, names[::-1] * 2, 0), words, 2)
    assert turned == draw_pairs(views, words, 2) != draw_pairs(DrawnViews(bundled, names, 1), words, 2)


def test_few_pictures_are_taken_again_from_wording_to_wording(bundled, names):
    words = OwnWords({"track": ("where are we", "name the circuit", "what course")})
    pairs = draw_pairs(DrawnViews(bundled, names[:4], 0), words, 100)
    assert Counter(own.question for own, _ in pairs) == dict.fromkeys(words.wordings["track"], 4)


def test_nothing_answers_the_unanswerable(views, config):
    asked = draw_unanswerable(views, read_own_words(config), 2)
    assert [(r.question, r.answer, r.family) for r in asked] == [
        (question, UNKNOWN, OTHER) for question in WORDS["unknown"] for _ in range(2)
    ]
    assert len({r.image_file for r in asked}) > 2


def test_both_wordings_and_what_is_unknown_are_asked_and_scored_by_themselves(bundled, scored, config):
    words = read_own_words(config)
    asked = questions(bundled, config, "test", words, scored)
    pairs = draw_pairs(DrawnViews(bundled, (r.image_file for r in scored), config.seed), words, 3)
    assert asked[:9] == [own for own, _ in pairs] and asked[15:] == [template for _, template in pairs]
    assert {r.family for r in asked[9:15]} == {OTHER}
    truth = {template.question: template.answer for _, template in pairs if template.family == "left_of"}
    rows, _ = predict(FeatureStore(Parrot(truth), bundled, 4), asked, "own words", base_too=True)
    write_answers(rows, further_file(config.run_path, "own_words"))
    assert len(rows) == 9 + 6 + 9 and sum(r.correct for r in rows if r.answer == UNKNOWN) == 3

    run = scored_run([], folder=config.run_path)
    figures = analysis.OwnWords.measure(run)
    assert (figures.n, figures.exact) == (9, 0) and figures.trained_exact > 0
    assert figures.families["left_of"].trained_exact > figures.families["left_of"].exact == 0
    assert figures.unknown == pytest.approx(3 / 9, abs=1e-6), "name our kart"
    assert (figures.unanswerable.n, figures.unanswerable.unknown) == (6, 0.5)
    assert figures.base_exact == 0 and 0 < figures.ece <= 1
    assert figures.clusters == "race" and len(figures.exact_ci95) == len(figures.unknown_ci95) == 2
    section = figures.section(run)
    assert [line["family"] for line in section.table.rows] == ["all", "ego", "left_of", "unanswerable"]
    assert section.table.rows[-1]["answered unknown"] == "50.0%" and "33.3%" in section.text
    assert analysis.OwnWords.read(figures.into_metrics()) == figures


def test_figures_are_paired_and_clustered_by_race(tmp_path):
    families = [{"family": name, "answer": name} for name in ("ego", "track")]
    template = [row("a", prediction="ego", **families[0]), row("b", prediction="track", picture=1, **families[1])]
    own = [replace(template[0], prediction="?", correct=False), template[1]]
    own = [replace(p, wording=len(FAMILIES[p.family].wordings), base_correct=False) for p in own]
    write_answers([*own, *template], further_file(tmp_path, "own_words"))
    figures = analysis.OwnWords.measure(scored_run([], folder=tmp_path))
    assert (figures.n, figures.exact, figures.trained_exact, figures.difference) == (2, 0.5, 1, -0.5)
    assert figures.exact_ci95 == (0, 1) and figures.difference_ci95 == (-1, 0)
    assert figures.unknown == 0 and figures.n_clusters == 2 and figures.unanswerable is None
    assert "unanswerable" not in figures.into_metrics()["own_words"]
    assert "nothing in a picture answers" not in figures.words()


def test_without_pictures_or_with_a_user_s_questions_nothing_is_asked(bundled, scored, config, tmp_path):
    words = read_own_words(config)
    assert questions(bundled, config, "test", words, scored)
    assert questions(bundled, config, CUSTOM_SPLIT, words, scored) == []
    none = ScoreConfig(run_dir=str(tmp_path), own_words_file="not/there.json", own_words_pictures=0)
    assert questions(bundled, none, "test", read_own_words(none), scored) == []
    assert analysis.OwnWords.measure(scored_run([], folder=tmp_path)) is None


def test_the_bundled_file_has_every_family_and_none_of_its_wordings():
    words = read_own_words(ScoreConfig())
    assert list(words.wordings) == list(FAMILIES), "benchmarks/own_words.json lists the families in their order"
    assert all(words.wordings.values()) and words.unanswerable


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ([], "not an object; give a JSON object"),
        ({}, "an empty object"),
        ({"unknown": ["will it rain"], "ego": []}, "no wording of a family"),
        ({"egg": ["x"]}, "no family egg; valid ones are ego, count"),
        ({"ego": "who"}, "ego is not a list"),
        ({"ego": ["who", " "]}, "ego, item 1 is ' '; give a text"),
        ({"ego": ["who", 3]}, "ego, item 1 is 3; give a text"),
        ({"ego": ["who is {kart}"]}, r"ego, item 0, 'who is \{kart\}', needs no place for a kart"),
        ({"in_view": ["here?"]}, r"in_view, item 0, 'here\?', needs \{kart\}, once each"),
        ({"nearer": ["{a} or {a}"]}, r"needs \{a\} and \{b\}, once each"),
        ({"unknown": ["is {kart} rich"]}, "unknown, item 0, .* needs no place for a kart"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, lists, said):
    path = tmp_path / "words.json"
    path.write_text(json.dumps(lists))
    with pytest.raises(QaError, match=rf"words\.json: {said}" if not said.startswith("needs") else said):
        read_own_words(ScoreConfig(own_words_file=str(path)))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"none\.json: not there; .* in OWN_WORDS_FILE"):
        read_own_words(ScoreConfig(own_words_file="none.json"))
    with pytest.raises(ConfigError, match="OWN_WORDS_PICTURES=-1"):
        make_config({"OWN_WORDS_PICTURES": -1}, ScoreConfig)
