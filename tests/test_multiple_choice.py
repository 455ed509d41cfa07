import json
import math
import shutil
from collections import Counter

import pytest
from hand_made import scored_run
from tiny import fresh, pictures

from stkvlm_lib.analysis.further_sets import MultipleChoice
from stkvlm_lib.config import ROOT, ScoreConfig
from stkvlm_lib.evaluation.asking import Blind
from stkvlm_lib.evaluation.multiple_choice import PROMPT, choose, items_to_ask, read_items
from stkvlm_lib.evaluation.predictions import further_file, write_answers
from stkvlm_lib.grammar.captions import read_caption
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.qa.qa_sets import CUSTOM_SPLIT, QaError
from stkvlm_lib.vlm.features import FeatureStore

IMAGE = "test/" + min(file.name for file in (ROOT / "frames" / "test").glob("*_im.jpg"))
KNOWN = [
    "tux is the ego car.",
    "There are 3 karts in the scene.",
    "The track is abyss.",
    "gnu is left of the ego car.",
    "kiki is in front of the ego car.",
]
STRANGE = [*KNOWN[:4], "It rains."]


@pytest.fixture(scope="module")
def store(base_folder, bundled):
    return FeatureStore(fresh(base_folder), bundled, 4)


@pytest.fixture(scope="module")
def blind(store):
    return Blind(store.answerer, pictures(1)[0])


def item(candidates=KNOWN, index=0, image=IMAGE, **changes):
    return {"image_file": image, "candidates": candidates, "correct_index": index, **changes}


def write(tmp_path, *rows):
    path = tmp_path / "mc.json"
    path.write_text(json.dumps(list(rows)))
    return path


@pytest.mark.parametrize(
    ("text", "family", "question", "answer"),
    [
        ("tux is the ego car.", "ego", "What kart is the ego car?", "tux"),
        ("There are 12 karts in the scenario.", "count", "How many karts are there in the scenario?", "12"),
        (" The track is nowhere. ", "track", "What track is this?", "nowhere"),
        ("tux is behind the ego car.", "front_back", "Is tux in front of or behind the ego car?", "back"),
        ("tux is right of the ego car.", "left_right", "Is tux to the left or right of the ego car?", "right"),
    ],
)
def test_a_caption_states_an_answer_to_a_question(text, family, question, answer):
    assert read_caption(text) == (family, question, answer)


def test_an_item_is_weighed_by_the_answers_that_its_sentences_state(store, blind, bundled, tmp_path):
    """As when each is asked alone, and comparable between families by the number of their answers."""
    items = read_items(write(tmp_path, item(), item(list(reversed(KNOWN)), 1)), bundled)
    rows = choose(store, items, blind)
    image = bundled.by_image_file[IMAGE].image()
    for text, score in zip(rows[0].candidates, rows[0].scores, strict=True):
        family, question, answer = read_caption(text)
        (ranked,) = store.answerer.rank(image, question, [answer])
        expected = math.log(ranked.confidence * len(FAMILIES[family].answers))
        assert score == pytest.approx(expected, abs=1e-3)
    assert rows[1].scores == tuple(reversed(rows[0].scores))
    best = KNOWN[rows[0].scores.index(max(rows[0].scores))]
    assert rows[0].correct == (best == KNOWN[0]) and rows[1].correct == (best == KNOWN[3])


def test_an_item_with_a_strange_sentence_is_weighed_by_the_sentences_themselves(store, blind, bundled, tmp_path):
    rows = choose(store, read_items(write(tmp_path, item(STRANGE)), bundled), blind)
    image = bundled.by_image_file[IMAGE].image()
    expected = {a.text: math.log(a.confidence) for a in store.answerer.rank(image, PROMPT, STRANGE)}
    assert rows[0].scores == pytest.approx([expected[text] for text in STRANGE], abs=1e-3)


def test_blind_is_what_the_mean_picture_would_be_answered(store, bundled, tmp_path):
    other = next(name for name in bundled.by_image_file if name.startswith("test/") and name != IMAGE)
    items = read_items(write(tmp_path, item(), item(STRANGE, 4, other)), bundled)
    rows = choose(store, items, Blind(store.answerer, bundled.by_image_file[IMAGE].image()))
    assert rows[0].blind_chosen == rows[0].chosen and rows[0].blind_correct == rows[0].correct


def test_figures_by_what_the_true_sentence_states(store, blind, bundled, tmp_path):
    names = [name for name in bundled.by_image_file if name.startswith("test/")][::70]
    rows = [item(image=name, index=i % 5) for i, name in enumerate(names)]
    rows = choose(store, read_items(write(tmp_path, *rows), bundled), blind)
    write_answers(rows, further_file(tmp_path, "mc"))
    run = scored_run([], folder=tmp_path)
    figures = MultipleChoice.measure(run)
    assert (figures.n, figures.chance, figures.clusters) == (len(names), 0.2, "race")
    assert figures.exact == pytest.approx(sum(r.correct for r in rows) / len(rows), abs=1e-5)
    assert figures.blind == pytest.approx(sum(r.blind_correct for r in rows) / len(rows), abs=1e-5)
    assert sum(part.n for part in figures.families.values()) == figures.n
    assert set(figures.families) == {"ego", "count", "track", "left_right", "front_back"}
    written = figures.into_metrics()
    assert written["mc_exact"] == written["mc"]["exact"] and MultipleChoice.read(written) == figures
    section = figures.section(run)
    states = [line["true sentence states"] for line in section.table.rows]
    assert states == ["all", "the ego kart", "how many karts", "the track", "left or right", "in front or behind"]
    assert f"of {len(names)} items are right" in section.text and "Chance is 20.0%" in section.text


def test_a_run_without_choices_has_no_figures(tmp_path):
    assert MultipleChoice.measure(scored_run([], folder=tmp_path)) is None


def test_a_file_of_the_user_is_asked_whole_and_the_run_s_own_is_drawn_from(bundled, written, tmp_path):
    shutil.copytree(written[0], tmp_path / "qa")
    settings = {"run_dir": str(tmp_path), "extended_scored": 2}
    own = items_to_ask(bundled, ScoreConfig(**settings), "test")
    assert set(Counter(i.family for i in own).values()) == {2} and len(own) == 10
    mine = ScoreConfig(mc_file=str(write(tmp_path, *[item()] * 7)), **settings)
    assert len(items_to_ask(bundled, mine, CUSTOM_SPLIT)) == 7
    assert items_to_ask(bundled, ScoreConfig(**settings), CUSTOM_SPLIT) == []
    (tmp_path / "qa" / "test_mc.json").write_text("[]")
    assert items_to_ask(bundled, ScoreConfig(**settings), "test") == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "an empty list"),
        (["x"], "item 0 has no image_file"),
        ([item(), item(image=3)], "item 1 has no image_file"),
        ([item("tux")], "item 0: candidates is not a list of texts"),
        ([item([*KNOWN[:4], " "])], "item 0: candidates is not a list of texts"),
        ([item(KNOWN[:4])], "item 0 has 4 candidates; give 5"),
        ([item(index=5)], "item 0: correct_index is 5; give a whole number from 0 to 4"),
        ([item(index=True)], "item 0: correct_index is True"),
        ([item(index="1")], "item 0: correct_index is '1'"),
        ([item(image="test/none.jpg")], "item 0: no picture 'test/none.jpg' in .*image_file counts from FRAMES_DIR"),
    ],
)
def test_what_is_no_multiple_choice_is_named(bundled, tmp_path, rows, words):
    with pytest.raises(QaError, match=words):
        read_items(write(tmp_path, *rows), bundled)


def test_a_file_that_is_no_list_is_named(bundled, tmp_path):
    path = tmp_path / "mc.json"
    path.write_text("{}")
    with pytest.raises(QaError, match=r"mc\.json: not a list of questions; give a JSON list of image_file, candidates"):
        read_items(path, bundled)
    with pytest.raises(FileNotFoundError, match=r"none\.json: not there"):
        read_items(tmp_path / "none.json", bundled)


def test_the_course_format_of_a_run_is_read_back(written, bundled):
    items = read_items(written[0] / "test_mc.json", bundled)
    assert len(items) == written[1]["test"].choices
    assert {i.family for i in items} == {"ego", "count", "track", "left_right", "front_back"}
