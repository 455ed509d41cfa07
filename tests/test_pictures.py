"""The pictures of pretraining: pixels and boxes move together, batches follow from seed and step."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import copy_frames

from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.pretraining.embedded import INPUT_SIZE
from stkvlm_lib.pretraining.pictures import TIGHTEST, WIDEST, Batch, Crop, Pictures, draw_colours, draw_crop, recolour


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Pictures:
    return Pictures([copy_frames(tmp_path_factory.mktemp("frames"), "train", 2)])


CROPS = [
    Crop(),
    Crop(mirrored=True),
    Crop(0.1, 0.2, 0.7),
    Crop(0.1, 0.2, 0.7, mirrored=True),
    Crop(0.35, 0.0, 0.62, mirrored=True),
    Crop(0.15, 0.3, 0.6),
    Crop(-0.2, -0.3, 1.5),
    Crop(-0.4, -0.1, 1.5, mirrored=True),
]


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Pictures:
    """One black 600x400 picture with tux's box in red (off centre) and gnu's in green (smaller, elsewhere)."""
    folder = tmp_path_factory.mktemp("painted") / "train"
    folder.mkdir()
    boxes = {"tux": (180, 150, 330, 260), "gnu": (350, 180, 410, 240)}
    image = Image.new("RGB", (600, 400))
    image.paste((255, 0, 0), boxes["tux"])
    image.paste((0, 255, 0), boxes["gnu"])
    image.save(folder / "00000_00_im.jpg", quality=95, subsampling=0)
    rows = [[1, number, *box] for number, box in enumerate(boxes.values())]
    info = {"track": "abyss", "karts": list(boxes), "detections": [rows]}
    (folder / "00000_info.json").write_text(json.dumps(info))
    return Pictures([folder.parent])


def cut(crop: Crop) -> Batch:
    return Batch(np.array([0]), 0, [crop])


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_boxes_follow_the_pixels(painted, crop):
    """Where the moved picture is red (green), there is tux's (gnu's) moved box, to one px of the 150x100 frame."""
    pixels, (scene,) = painted.show(cut(crop)), painted.scenes(cut(crop))
    assert pixels.shape == (1, 3, INPUT_SIZE, INPUT_SIZE)
    assert {kart.name for kart in scene.karts} == {"tux", "gnu"}
    for kart in scene.karts:
        channel = ("tux", "gnu").index(kart.name)
        rows, columns = (pixels[0, channel] > 0.5).nonzero(as_tuple=True)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / INPUT_SIZE
        assert seen * (150, 100, 150, 100) == pytest.approx(np.array(kart.box), abs=1.5)


def test_a_mirrored_crop_is_cut_from_the_mirrored_picture():
    assert Crop(mirrored=True)((180, 150, 330, 260)) == (269, 150, 419, 260)
    assert Crop(0.25, 0.5, 0.5)((180, 240, 330, 260)) == (60, 80, 360, 120)
    assert Crop(0.25, 0.5, 0.5, mirrored=True)((180, 240, 330, 260)) == (238, 80, 538, 120)


def test_a_kart_outside_the_crop_is_no_longer_in_the_scene(painted):
    (scene,) = painted.scenes(cut(Crop(0.0, 0.1, 0.56)))  # x from 0 to 336, gnu begins at 350
    assert [kart.name for kart in scene.karts] == ["tux"]
    assert scene.ego.name == "tux"
    assert Crop(0.0, 0.0, 0.5)((180, 150, 330, 260)) == (360, 300, 599, 399)  # what is outside is cut off


def test_drawn_windows_lie_in_the_picture_or_around_it():
    rng = np.random.default_rng(0)
    crops = [draw_crop(rng) for _ in range(300)]
    parts, wholes, wider = ([c for c in crops if np.sign(c.size - 1) == s] for s in (-1, 0, 1))
    assert min(map(len, (parts, wholes, wider))) > 70
    assert all(min(c.x, c.y) >= 0 and max(c.x, c.y) + c.size <= 1 + 1e-9 for c in parts)
    assert all(max(c.x, c.y) <= 0 and min(c.x, c.y) + c.size >= 1 - 1e-9 for c in wider)
    assert TIGHTEST <= min(c.size for c in crops) < max(c.size for c in crops) <= WIDEST
    assert {c.mirrored for c in crops} == {True, False}


def test_recolour_keeps_the_range_and_leaves_grey_grey():
    grey = torch.full((3, 3, 8, 8), 0.5)
    colours = torch.from_numpy(draw_colours(np.random.default_rng(0), 3))
    out = recolour(grey, colours, torch.Generator().manual_seed(0))
    assert out.shape == grey.shape and out.min() >= 0 and out.max() <= 1
    assert not torch.equal(out, grey)
    means = out.mean((2, 3))
    assert (means.amax(1) - means.amin(1)).max() < 0.03  # hues stay


def test_one_picture_in_four_is_noisy():
    colours = draw_colours(np.random.default_rng(0), 400)
    assert 60 < (colours[:, 3] > 0).sum() < 140
    assert np.array_equal(colours, draw_colours(np.random.default_rng(0), 400))
    still = recolour(torch.full((1, 3, 8, 8), 0.5), torch.tensor([[1.0, 1, 1, 0]]), torch.Generator())
    assert torch.allclose(still, torch.tensor(0.5))
    noisy = recolour(torch.full((1, 3, 64, 64), 0.5), torch.tensor([[1.0, 1, 1, 0.03]]), torch.Generator())
    assert float(noisy.std()) == pytest.approx(0.03, abs=0.003)


def test_pictures_hold_train_views_with_karts(pictures):
    assert 0 < len(pictures) <= 10
    assert {view.frame.split for view in pictures.views} == {"train"}
    assert pictures.pixels.shape == (len(pictures), INPUT_SIZE, INPUT_SIZE, 3)
    assert pictures.chances.sum() == pytest.approx(1)


def test_each_folder_has_its_share_of_a_batch(pictures, painted):
    roots = [pictures.views[0].frame.folder.parent, painted.views[0].frame.folder.parent]
    both = Pictures([*roots, roots[1]], [2, 1, 1])
    assert len(both) == len(pictures) + 2
    assert both.chances[: len(pictures)].sum() == pytest.approx(0.5)
    assert both.chances[len(pictures) :] == pytest.approx([0.25, 0.25])
    with pytest.raises(ValueError, match="2 shares for 1 folders"):
        Pictures(roots[:1], [1, 1])


def test_a_folder_without_karts_is_refused(painted, tmp_path):
    (tmp_path / "train").mkdir()
    for path in painted.views[0].frame.folder.iterdir():
        text = path.read_text().replace("[1, ", "[2, ") if path.suffix == ".json" else None
        (tmp_path / "train" / path.name).write_bytes(text.encode() if text else path.read_bytes())
    with pytest.raises(ValueError, match="no picture of the split train shows a kart"):
        Pictures([tmp_path])


def test_a_batch_depends_on_seed_and_step_alone(pictures):
    def drawn(seed: int, step: int) -> tuple:
        batch = pictures.draw(seed, step, 4)
        return pictures.show(batch), pictures.scenes(batch)

    pixels, scenes = drawn(0, 5)
    again, same = drawn(0, 5)
    assert torch.equal(pixels, again) and scenes == same
    assert not torch.equal(pixels, drawn(0, 6)[0])
    assert not torch.equal(pixels, drawn(1, 5)[0])


def test_in_order_every_picture_comes_once_and_unaltered(pictures):
    batches = list(pictures.in_order(4))
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(len(pictures)))
    plain = pictures.pixels[:4].permute(0, 3, 1, 2) / 255
    assert torch.allclose(pictures.show(batches[0]), plain, atol=1e-4)
    assert pictures.scenes(batches[0]) == [read_scene(view) for view in pictures.views[:4]]
