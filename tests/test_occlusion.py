"""Occlusion maps of a model that looks for white, on a picture with one white patch."""

import json

import numpy as np
import pytest
from PIL import Image
from stub_model import StubModel

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.explore.asking import Asker
from stkvlm_lib.explore.models import AskError, OwnModel
from stkvlm_lib.explore.occlusion import OcclusionMap, Patch, describe, draw_occlusion, occlude
from stkvlm_lib.explore.patches import BATCH, COLUMNS, PATCHES, patch_box
from stkvlm_lib.figures.drawing import enlarged
from stkvlm_lib.figures.style import VERMILLION

WHITE = 2 * COLUMNS + 5
"""The white patch: the third row, the sixth column."""


@pytest.fixture
def view(tmp_path):
    info = {"track": "abyss", "karts": ["tux"], "detections": [[[1, 0, 210, 110, 290, 190]]]}
    (tmp_path / "00000_info.json").write_text(json.dumps(info))
    image = Image.new("RGB", (150, 100), (40, 40, 40))
    left, top, right, bottom = patch_box(WHITE, image.size)
    image.paste("white", (left + 2, top + 2, right - 2, bottom - 2))
    image.save(tmp_path / "00000_00_im.jpg", quality=100, subsampling=0)
    return read_frames(tmp_path).views("all")[0]


def make_map(view, **more):
    return occlude(OwnModel(StubModel()), view, "What is there?", **more)


def test_only_the_patch_that_the_answer_hangs_on_changes_it(view):
    found = make_map(view)
    assert (found.answer, found.probability, len(found.patches)) == ("seen", 0.9, PATCHES)
    (changing,) = found.changing
    assert (changing.number, changing.answer) == (WHITE, "unseen")
    assert found.drop(changing) == pytest.approx(1 - 0.2 / 0.9)
    assert all(found.drop(patch) == pytest.approx(0) for patch in found.patches if patch != changing)


def test_patches_tile_a_picture_of_any_size():
    covered = np.zeros((101, 157), int)
    for number in range(PATCHES):
        left, top, right, bottom = patch_box(number, (157, 101))
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_progress_is_told_and_cancelling_ends_it_between_batches(view):
    steps = []
    make_map(view, progress=lambda done, total: steps.append((done, total)))
    assert steps[0] == (0, PATCHES) and steps[-1] == (PATCHES, PATCHES) and steps == sorted(steps)
    model = StubModel()
    found = occlude(OwnModel(model), view, "?", cancelled=lambda: model.encoded > 1)
    assert found is None and model.encoded == 1 + BATCH


def test_without_a_model_there_is_no_map(view):
    with pytest.raises(AskError, match="No model is loaded"):
        occlude(Asker(None).model, view, "What is there?")


def test_words_say_what_the_map_shows(view):
    said = describe(make_map(view), view)
    assert said.startswith("One patch of 96 changes the answer “seen” (90%) when it is covered: ")
    assert said.endswith(": row 3, column 6 (on tux) makes it “unseen”.")
    steady = OcclusionMap("tux", 0.8, (Patch(0, "tux", 0.8), Patch(1, "tux", 0.6)))
    assert describe(steady, view) == (
        "No single patch of 2 changes the answer “tux” (80%); row 1, column 2 takes it down most, to 60%."
    )
    unmoved = OcclusionMap("tux", 1.0, (Patch(0, "tux", 1.0), Patch(1, "tux", 0.996)))
    assert describe(unmoved, view).endswith("(100%), or makes it noticeably less likely.")
    shaky = OcclusionMap("tux", 0.5, tuple(Patch(i, "gnu" if i else "", 0.1 * i) for i in range(5)))
    said = describe(shaky, view)
    assert said.startswith("5 of 5 patches change the answer “tux” (50%)")
    assert "“(nothing)”" in said and said.endswith("; and 2 more.")


def test_the_picture_is_tinted_where_it_matters_and_nowhere_else(view):
    plain = enlarged(view, 600)
    drawn = np.asarray(draw_occlusion(plain, make_map(view)), int)
    left, top, right, bottom = patch_box(WHITE, plain.size)
    edge = drawn[top + 12, left + 12]  # inside the frame, off the text
    vermillion = np.array([int(VERMILLION[i : i + 2], 16) for i in (1, 3, 5)])
    assert np.abs(edge - vermillion).sum() < np.abs(np.asarray(plain, int)[top + 12, left + 12] - vermillion).sum()
    untouched = patch_box(PATCHES - 1, plain.size)
    inside = (slice(untouched[1] + 3, untouched[3] - 3), slice(untouched[0] + 3, untouched[2] - 3))
    assert np.array_equal(drawn[inside], np.asarray(plain, int)[inside])
