"""Pretraining of the embedded base: targets, moved pictures and boxes, resuming, and the exported model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from stkvlm_lib.grammar.questions import KARTS, TRACKS
from stkvlm_lib.grammar.scene import Kart, Scene
from stkvlm_lib.vlm.embedded import GRID, INPUT_SIZE, caption
from stkvlm_lib.vlm.packing import IGNORE
from stkvlm_lib.vlm.pretrain import Captions, PretrainConfig, Pretraining, main
from stkvlm_lib.vlm.pretrain_data import Crop, Pictures, dense_targets, draw_crop, recolour

FRAMES = Path(__file__).parent.parent / "frames"
TINY = PretrainConfig(dense_steps=2, caption_steps=2, batch_size=4, warmup_steps=1, seed=3)


def copy_frames(root: Path, n: int) -> Path:
    """A data folder with the first `n` bundled frames of train and two of valid."""
    for split, count in (("train", n), ("valid", 2)):
        (root / split).mkdir(parents=True)
        for info in sorted((FRAMES / split).glob("*_info.json"))[:count]:
            for path in info.parent.glob(info.name.replace("info.json", "*")):
                shutil.copy(path, root / split)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Pictures:
    return Pictures([copy_frames(tmp_path_factory.mktemp("frames") / "data", 2)], TINY.first_weight)


# Targets of the dense stage


def grid(values: np.ndarray) -> np.ndarray:
    return values.reshape(GRID, GRID, *values.shape[1:])


def test_dense_targets_of_a_hand_made_scene():
    """A patch is 9.375 x 6.25 px. tux covers patch centres of columns 2..4 and rows 8..9; its centre lies in (3, 8)."""
    tux = Kart(0, "tux", (20, 50, 45, 62))
    targets = dense_targets(Scene("mines", (tux,), tux))
    covered = np.zeros((GRID, GRID), bool)
    covered[8:10, 2:5] = True
    assert (grid(targets["kart"]) == np.where(covered, KARTS.index("tux") + 1, 0)).all()
    centre = np.array([32.5 * GRID / 150, 56 * GRID / 100])
    for row, column in np.argwhere(covered):
        expected = centre - (column + 0.5, row + 0.5)
        assert grid(targets["offset"])[row, column] == pytest.approx(expected, abs=1e-5)
    is_ego, holds_centre = np.moveaxis(grid(targets["flags"]), -1, 0)
    assert (is_ego == covered).all()
    assert np.argwhere(holds_centre).tolist() == [[8, 3]]
    assert targets["track"] == TRACKS.index("mines")
    assert not grid(targets["offset"])[~covered].any()


def test_dense_targets_tell_the_ego_kart_from_others():
    ego, other = Kart(0, "tux", (65, 40, 85, 60)), Kart(1, "gnu", (5, 5, 25, 25))
    targets = dense_targets(Scene("mines", (other, ego), ego))
    names = {name: grid(targets["kart"]) == KARTS.index(name) + 1 for name in ("tux", "gnu")}
    flags = grid(targets["flags"])
    assert names["tux"].any() and names["gnu"].any()
    assert (flags[names["tux"], 0] == 1).all() and (flags[names["gnu"], 0] == 0).all()
    assert flags[..., 1].sum() == 2


@pytest.mark.parametrize("reverse", [False, True])
def test_the_kart_lower_in_the_picture_covers_the_other(reverse):
    far, near = Kart(0, "tux", (60, 30, 90, 60)), Kart(1, "gnu", (60, 45, 90, 80))
    karts = (near, far) if reverse else (far, near)
    kart = grid(dense_targets(Scene("mines", karts, far))["kart"])
    assert kart[8, 8] == KARTS.index("gnu") + 1  # row 8 is y 50..56, in both boxes
    assert kart[6, 8] == KARTS.index("tux") + 1


def test_a_kart_smaller_than_a_patch_still_has_one():
    small = Kart(0, "xue", (16, 16, 21, 21))  # between the patch centres at 14.1, 23.4 across and 15.6, 21.9 down
    targets = dense_targets(Scene("mines", (small,), small))
    assert np.argwhere(grid(targets["kart"])).tolist() == [[2, 1]]


def test_a_scene_without_karts_is_background():
    targets = dense_targets(Scene("abyss", (), None))
    assert not targets["kart"].any() and not targets["flags"].any()
    assert {name: value.shape for name, value in targets.items()} == {
        "kart": (GRID * GRID,),
        "offset": (GRID * GRID, 2),
        "flags": (GRID * GRID, 2),
        "track": (),
    }


# Pictures and boxes move together

CROPS = [
    Crop(),
    Crop(mirrored=True),
    Crop(0.1, 0.2, 0.7),
    Crop(0.1, 0.2, 0.7, mirrored=True),
    Crop(0.35, 0.0, 0.62, mirrored=True),
    Crop(0.15, 0.3, 0.6),
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
    return Pictures([folder.parent], 1.0)


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_boxes_follow_the_pixels(painted, crop):
    """Where the moved picture is red (green), there is tux's (gnu's) moved box, to one px of the 150x100 frame."""
    pixels, (scene,) = painted.batch([0], [crop])
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
    _, (scene,) = painted.batch([0], [Crop(0.0, 0.1, 0.56)])  # x from 0 to 336, gnu begins at 350
    assert [kart.name for kart in scene.karts] == ["tux"]
    assert scene.ego.name == "tux"
    assert Crop(0.0, 0.0, 0.5)((180, 150, 330, 260)) == (360, 300, 599, 399)  # what is outside is cut off


def test_drawn_crops_lie_in_the_picture():
    rng = np.random.default_rng(0)
    crops = [draw_crop(rng) for _ in range(200)]
    assert all(min(c.x, c.y) >= 0 and max(c.x, c.y) + c.size <= 1 + 1e-9 for c in crops)
    assert min(c.size for c in crops) >= 0.6
    assert {c.mirrored for c in crops} == {True, False}
    assert 0.3 < np.mean([c.size == 1.0 for c in crops]) < 0.7


def test_recolour_keeps_the_range_and_leaves_grey_grey():
    grey = torch.full((3, 3, 8, 8), 0.5)
    rng = np.random.default_rng(0)
    out = recolour(grey, rng)
    assert out.shape == grey.shape and out.min() >= 0 and out.max() <= 1
    assert not torch.equal(out, grey)
    means = out.mean((2, 3))
    assert (means.amax(1) - means.amin(1)).max() < 0.03  # hues stay


def test_pictures_hold_train_views_with_karts(pictures):
    assert 0 < len(pictures) <= 10
    assert {view.frame.split for view in pictures.views} == {"train"}
    assert pictures.pixels.shape == (len(pictures), INPUT_SIZE, INPUT_SIZE, 3)
    assert pictures.chances.sum() == pytest.approx(1)


def test_the_first_folder_has_its_share_of_each_batch(pictures, painted):
    roots = [pictures.views[0].frame.folder.parent, painted.views[0].frame.folder.parent]
    both = Pictures([*roots, roots[1]], 0.4)
    assert len(both) == len(pictures) + 2
    assert both.chances[: len(pictures)].sum() == pytest.approx(0.4)
    assert both.chances[len(pictures) :] == pytest.approx([0.3, 0.3])


def test_a_batch_depends_on_seed_and_step_alone(pictures):
    once, scenes = pictures.draw(0, 5, 4)
    pictures.draw(0, 6, 4)
    again, same_scenes = pictures.draw(0, 5, 4)
    assert torch.equal(once, again) and scenes == same_scenes
    assert not torch.equal(once, pictures.draw(0, 6, 4)[0])
    assert not torch.equal(once, pictures.draw(1, 5, 4)[0])


# Captions


@pytest.fixture(scope="module")
def undisturbed(pictures) -> Pretraining:
    """Four steps in one go: two dense, two with captions."""
    training = Pretraining(TINY)
    for _ in range(training.total):
        training.train_step(pictures)
    return training


def test_captions_stand_in_the_chat_format_of_the_processor(undisturbed, pictures):
    """What pretraining feeds is what the processor makes of a message, so that nothing has to be relearned."""
    processor = undisturbed.processor
    message = {"role": "user", "content": [{"type": "image"}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    expected = processor(text=[text], images=[[pictures.views[0].image()]])["input_ids"][0]
    captions = Captions(processor)
    assert [*captions.prefix, *captions.lead] == expected


def test_captions_are_learned_sentence_by_sentence_with_the_stop_token(undisturbed):
    tux, gnu = Kart(0, "tux", (65, 40, 85, 60)), Kart(1, "gnu", (5, 5, 25, 25))
    scene = Scene("mines", (tux, gnu), tux)
    batch = Captions(undisturbed.processor)([scene, Scene("abyss", (), None)])
    for row, expected in zip(batch["labels"], (list(caption(scene)), ["The track is abyss"]), strict=True):
        told = undisturbed.processor.tokenizer.decode(row[row != IGNORE])
        assert told == "".join(f" {sentence}<end_of_utterance>" for sentence in expected)


# Training, resuming, exporting


def weights(training: Pretraining) -> dict[str, torch.Tensor]:
    heads = {f"head.{name}": value for name, value in training.head.state_dict().items()}
    return {**training.model.state_dict(), **heads}


def test_each_stage_trains_its_part(pictures):
    training = Pretraining(TINY)
    start = {name: value.clone() for name, value in weights(training).items()}

    def moved() -> set[str]:
        return {
            n.split(".")[1] for n, v in weights(training).items() if n.startswith("model.") and (v != start[n]).any()
        }

    losses = training.train_step(pictures)
    assert moved() == {"vision_model"} and "caption" not in losses
    training.train_step(pictures)
    losses = training.train_step(pictures)
    assert moved() == {"vision_model", "connector", "text_model"}
    assert {"kart", "offset", "flags", "track", "caption"} <= losses.keys()
    assert all(np.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_training_ends_with_the_same_weights(undisturbed, pictures, tmp_path, stop):
    """Interrupted in the dense stage and in the caption stage."""
    first = Pretraining(TINY)
    for _ in range(stop):
        first.train_step(pictures)
    first.seconds = 12.5
    first.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    torch.manual_seed(99)
    second = Pretraining(replace(TINY))
    second.restore(tmp_path)
    assert (second.step, second.seconds) == (stop, 12.5)
    assert second.model.lm_head.weight is second.model.get_input_embeddings().weight
    while second.step < second.total:
        second.train_step(pictures)
    expected = weights(undisturbed)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    assert not all(torch.equal(value, expected[name]) for name, value in weights(first).items())


def test_evaluating_in_between_changes_nothing(undisturbed, pictures):
    training = Pretraining(TINY)
    for step in range(training.total):
        if step in (1, 3):  # in the dense stage and in the caption stage
            means = training.evaluate(pictures, size=6)
        training.train_step(pictures)
    assert set(means) >= {"kart", "track", "caption"}
    expected = weights(undisturbed)
    assert all(torch.equal(value, expected[name]) for name, value in weights(training).items())


def test_a_checkpoint_of_other_settings_is_refused(undisturbed, tmp_path):
    undisturbed.save(tmp_path)
    with pytest.raises(SystemExit, match="other settings"):
        Pretraining(replace(TINY, seed=4)).restore(tmp_path)


def test_the_learning_rate_warms_up_in_each_stage_and_then_falls():
    training = Pretraining(replace(TINY, dense_steps=100, caption_steps=50, warmup_steps=10))
    rates = []
    for step in range(training.total):
        training.step = step
        rates.append(training.learning_rate())
    dense, captions = rates[:100], rates[100:]
    for stage, peak, floor in ((dense, TINY.dense_lr, 0.3), (captions, TINY.caption_lr, 0.02)):
        assert stage[0] < 0.2 * peak
        assert int(np.argmax(stage)) == 9 and max(stage) == pytest.approx(peak, rel=0.1)
        assert stage[-1] == pytest.approx(floor * peak, rel=0.1)


def test_the_exported_model_is_fp16_and_answers_like_the_trained_one(undisturbed, pictures, tmp_path):
    undisturbed.export(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20e6
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    processor = AutoProcessor.from_pretrained(tmp_path)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What track is this?"}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    batch = processor(text=[text], images=[[pictures.views[0].image()]], return_tensors="pt")
    with torch.no_grad():
        loaded, trained = model.float().eval()(**batch).logits, undisturbed.model.eval()(**batch).logits
    undisturbed.model.train()
    assert (loaded - trained).abs().max() < 0.02 * trained.abs().max()


def test_the_command_trains_logs_and_exports_and_a_second_call_only_exports(tmp_path, monkeypatch):
    data = copy_frames(tmp_path / "data", 2)
    out, work = tmp_path / "model", tmp_path / "work"
    settings = ["--dense-steps", "1", "--caption-steps", "1", "--batch-size", "2", "--warmup-steps", "1"]
    monkeypatch.setattr(
        "sys.argv", ["pretrain", "--frames", str(data), "--out", str(out), "--work", str(work), *settings]
    )
    monkeypatch.setattr("stkvlm_lib.vlm.pretrain.set_up_torch", lambda: None)
    main()
    first = (out / "model.safetensors").read_bytes()
    (row,) = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert row["step"] == 2 and {"kart", "caption"} <= row["valid"].keys()
    shutil.rmtree(out)
    main()
    assert (out / "model.safetensors").read_bytes() == first
    assert len((work / "log.jsonl").read_text().splitlines()) == 1
