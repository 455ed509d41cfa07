"""The figures of plots and galleries, and the pictures that drawing makes for them."""

import io

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from stkvlm_lib.data.frames import Detection, Frame, FramesError, View
from stkvlm_lib.figures import galleries, plots
from stkvlm_lib.figures.drawing import ROLE_COLOURS, TOO_SMALL, draw_overlay, enlarged, marks
from stkvlm_lib.scores.metrics import score
from stkvlm_lib.scores.scoring import Prediction

KARTS = ("tux", "gnu", "puffy", "kiki")


@pytest.fixture
def view(tmp_path):
    """A grey picture: tux in the middle, gnu front left, puffy back right, kiki too small."""
    Image.new("RGB", (150, 100), "#404040").save(tmp_path / "00001_00_im.jpg")
    boxes = [(280, 180, 320, 220), (80, 40, 160, 100), (440, 300, 520, 360), (400, 40, 416, 60)]
    frame = Frame(tmp_path, "all", "00001", "abyss", KARTS, "race-1")
    frame.views.append(View(frame, 0, tuple(Detection(1, i, box) for i, box in enumerate(boxes))))
    return frame.views[0]


def make_prediction(image_file="valid/a.jpg", family="ego", truth="tux", given="tux", confidence=0.5, question="?"):
    right = truth == given
    rest = {"race": "r", "track": "abyss", "base_prediction": "", "base_correct": False}
    rest |= {"blind_prediction": "", "blind_correct": False, "prefix_correct": right}
    return Prediction(image_file, question, truth, given, family, right, confidence=confidence, **rest)


def texts(figure) -> str:
    """All that a figure says, tick labels included."""
    figure.draw_without_rendering()
    found = [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text") and a.get_visible())]
    return "\n".join(found)


def has_colour(image: Image.Image, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.asarray(image) == wanted).all(-1).any())


def test_marks_give_each_kart_its_role(view):
    roles = {mark.name: mark.role for mark in marks(view)}
    assert roles == {"tux": "ego", "gnu": "front and left", "puffy": "back and right", "kiki": TOO_SMALL}


def test_enlarging_keeps_every_pixel_a_square(view):
    large = enlarged(view, 600)
    assert large.size == (600, 400)
    assert np.array_equal(np.asarray(large)[::4, ::4], np.asarray(view.image()))
    assert enlarged(view, 60).size == (60, 40), "shrunk where there is less room than pixels"


def test_overlay_draws_only_the_roles_that_are_there(view):
    drawn = draw_overlay(view, 600)
    for role in ("ego", "front and left", "back and right", TOO_SMALL):
        assert has_colour(drawn, ROLE_COLOURS[role]), role
    for role in ("front and right", "back and left"):
        assert not has_colour(drawn, ROLE_COLOURS[role]), role
    assert np.array_equal(np.asarray(draw_overlay(view, 600, karts=False)), np.asarray(enlarged(view, 600)))


def test_names_and_zones_can_be_left_out(view):
    bare = np.asarray(draw_overlay(view, 600, names=set(), zones=False))
    named = np.asarray(draw_overlay(view, 600, names={"gnu"}, zones=False))
    changed = np.argwhere((bare != named).any(-1))
    assert len(changed) and changed[:, 1].max() < 300, "only gnu, at the left, gets its name"
    zones = np.asarray(draw_overlay(view, 600, names=set()))
    assert (bare[:, 300] != zones[:, 300]).any() and (bare[200] != zones[200]).any()


def test_view_without_karts_can_be_drawn(view):
    empty = View(view.frame, 0, ())
    assert np.array_equal(np.asarray(draw_overlay(empty, 600)), np.asarray(enlarged(empty, 600)))
    assert "0 karts" in texts(galleries.overlay(empty))


def test_contact_sheet_and_overlays_caption_every_picture(bundled):
    views = bundled.views("valid")[:7]
    sheet = galleries.contact_sheet(views, columns=3, title="Valid")
    assert "Valid" in texts(sheet)
    assert sum(bool(axes.images) for axes in sheet.axes) == 7
    said = texts(galleries.overlays(views[:3]))
    assert all(view.image_file in said for view in views[:3]) and views[3].image_file not in said
    assert all(role in said for role in ROLE_COLOURS)
    assert "No pictures." in texts(galleries.contact_sheet([]))


def test_composition_shows_counts_and_names_the_answers(records):
    figure = plots.composition({"left_right": {"left": 30, "right": 10}, "track": {f"t{i}": 1 for i in range(23)}})
    said = texts(figure)
    assert "n = 40, 2 answers" in said and "n = 23, 23 answers" in said
    assert all(f"t{i}" in said for i in range(23)), "each of 23 tracks is named"
    assert max(patch.get_width() for patch in figure.axes[0].patches) == 0.75
    assert f"n = {sum(r.family == 'ego' for r in records):,}" in texts(plots.composition(records))
    assert "No questions." in texts(plots.composition([]))


def test_samples_come_from_every_family_whatever_the_order(bundled, records):
    one = texts(galleries.qa_samples(records, bundled, 10, seed=1))
    assert one == texts(galleries.qa_samples(records[::-1], bundled, 10, seed=1))
    assert one != texts(galleries.qa_samples(records, bundled, 10, seed=2))
    assert "What track is this?" in one and "behind the ego car?" in one and one.count("answer:") == 10


def test_label_mask_counts_collapses_and_escapes():
    tokens = ["<s>", *["<image>"] * 64, "ĠWhat", "<b>", "Ġtux", "<eos>", "Is", "Ġleft", "<pad>"]
    kept = [False] * 67 + [True] * 2 + [False, True, False]
    segments = [0] * 65 + [1] * 4 + [2] * 2 + [-1]
    shown = plots.label_mask(tokens, kept, segments)
    assert "71 tokens: 65 of the image prefix, 2 questions; 3 tokens take part" in shown
    assert "64 × &lt;image&gt;" in shown and shown.count("&lt;image&gt;") == 1
    assert "<b>" not in shown and "&lt;b&gt;" in shown and "&lt;pad" not in shown
    assert shown.count("font-weight:bold") == 3 + 1, "three tokens and the legend"
    assert "… and 1 more segments" in plots.label_mask(tokens, kept, segments, most=1)


def test_loss_curve_marks_the_best_evaluation():
    rows = [{"step": s, "epoch": 0, "loss": 1 / s} for s in range(1, 9)]
    rows += [{"step": 4, "valid_exact": 0.7, "valid_loss": 1}, {"step": 8, "valid_exact": 0.6, "valid_loss": 1}]
    said = texts(plots.loss_curve(rows))
    assert "n = 8 logged steps" in said and "n = 2 evaluations" in said and "best 70.0%\nat step 4" in said
    assert texts(plots.loss_curve([])).count("nothing logged yet") == 2


def test_accuracy_shows_every_family_with_what_is_known():
    predictions = [make_prediction(given=g) for g in ("tux", "gnu")] + [make_prediction(family="track")] * 2
    metrics = score(predictions, resamples=100, seed=0)
    said = texts(plots.accuracy_by_family(metrics))
    assert "all questions  (n = 4)" in said and "ego  (n = 2)" in said and "75.0%" in said
    assert "base without adapter" in said and "1 pictures" in said
    bare = {"n": 4, "exact": 0.5, "families": {"other": {"n": 4, "exact": 0.5, "prefix": 0.5, "majority": 0.25}}}
    said = texts(plots.accuracy_by_family(bare))
    assert "other  (n = 4)" in said and "base without adapter" not in said
    assert "no such questions" in texts(plots.accuracy_by_family(None))


def test_confusion_counts_and_orders_answers_outside_the_set_last():
    answers = ["2", "2", "10", "many"]
    predictions = [make_prediction(family="count", truth="2", given=given) for given in answers]
    figure = plots.confusion(predictions, "count")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["2", "10", "many"]
    assert "2  (n = 4)" in texts(figure) and "50.0% right, n = 4" in texts(figure)
    assert figure.axes[0].images[0].get_array().tolist() == [[0.5, 0.25, 0.25]]
    assert "No predictions of family ego" in texts(plots.confusion(predictions, "ego"))


def test_most_confused_ranks_wrong_pairs():
    predictions = [make_prediction(given=g) for g in ("gnu", "gnu", "kiki", "tux")]
    assert plots.most_confused(predictions, "ego", 1) == [{"truth": "tux", "prediction": "gnu", "n": 2, "share": 0.5}]
    assert plots.most_confused(predictions, "track", 1) == []


def test_worst_are_the_wrong_answers_of_highest_confidence():
    predictions = [
        make_prediction("a", given="gnu", confidence=0.6),
        make_prediction("b", given="tux", confidence=0.99),
        make_prediction("c", given="gnu", confidence=0.9),
        make_prediction("d", given="kiki", confidence=0.7),
    ]
    assert [p.image_file for p in galleries.worst_errors(predictions, 2)] == ["c", "d"]


def test_typical_are_the_most_frequent_confusions_on_different_pictures():
    predictions = [
        make_prediction("a", given="gnu", confidence=0.9),
        make_prediction("b", given="gnu"),
        make_prediction("a", family="count", truth="1", given="2", confidence=0.9),
        make_prediction("c", family="count", truth="1", given="2", confidence=0.8),
        make_prediction("d", given="kiki"),
    ]
    found = [(p.image_file, p.prediction, n) for p, n in galleries.typical_errors(predictions, 3)]
    assert found == [("a", "2", 2), ("b", "gnu", 2), ("d", "kiki", 1)]


def test_gallery_shows_what_there_is(bundled):
    name = bundled.views("valid")[0].image_file
    wrong = make_prediction(name, given="", confidence=0.9, question="What kart is the ego car?")
    said = texts(galleries.error_gallery([wrong], bundled, 9))
    assert "truth: tux" in said and "answered: (nothing)  (confidence 90%)" in said
    assert "(1 time)" in texts(galleries.error_gallery([wrong], bundled, 9, "typical"))
    assert "No wrong answer among 1 predictions" in texts(galleries.error_gallery([make_prediction(name)], bundled, 9))


def test_gallery_refuses_unknown_kinds_and_pictures(bundled):
    with pytest.raises(ValueError, match="worst or typical"):
        galleries.error_gallery([], bundled, 9, "best")
    with pytest.raises(FramesError, match="no picture nowhere.jpg"):
        galleries.error_gallery([make_prediction("nowhere.jpg", given="gnu")], bundled, 9)


def test_charts_show_and_save_themselves_without_pyplot(tmp_path):
    figure = plots.loss_curve([])
    plots.save(figure, tmp_path / "figures" / "loss_curve.png")
    for source in (tmp_path / "figures" / "loss_curve.png", io.BytesIO(figure._repr_png_())):
        with Image.open(source) as image:
            assert image.format == "PNG" and image.width > 800
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("name", ["$x^{$", "$", r"$\undefined$", "a_b^c", "<svg/onload=x>", "車"])
def test_names_from_data_are_drawn_as_they_stand(tmp_path, name):
    """Also where drawing itself makes the text, as ticks; none is taken for a formula."""
    chart = plots.composition({"track": {name: 3, "abyss": 1}})
    axes = chart.axes[0]
    axes.set(xticks=[0.5], xticklabels=[name], title=name)
    galleries.caption(axes, name)
    chart.legend(handles=[Line2D([], [], label=name)])
    plots.save(chart, tmp_path / "a.png")
    assert not any(text.get_parse_math() for text in chart.findobj(Text))
