import copy
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import fresh, make_base, pictures

from stkvlm_lib.config import EMBEDDED, ROOT
from stkvlm_lib.grammar.names import TRACKS
from stkvlm_lib.model_files import read_adapter
from stkvlm_lib.vlm import adapter, base_vlm
from stkvlm_lib.vlm.adapter import adapter_mb, load_answerer, mean_image, new_adapter, put_adapter, save_adapter
from stkvlm_lib.vlm.answering import image_outputs
from stkvlm_lib.vlm.base_vlm import ModelError, find_base, load_base
from stkvlm_lib.vlm.packing import collate, pack
from stkvlm_lib.vlm.trainer import answer_loss

QUESTIONS = [["What track is this?", "What kart is the ego car?"], ["Is tux in front of or behind the ego car?"], []]


@pytest.fixture(scope="module")
def images():
    return pictures(3)


def packed_batch(answerer, images):
    questions = [
        [("What track is this?", "abyss"), ("What kart is the ego car?", "tux")],
        [("What track is this?", "mines")],
    ]
    packed = [pack(answerer.prompt.prefix, [answerer.prompt.segment(q, a) for q, a in pairs]) for pairs in questions]
    batch = collate(packed, answerer.prompt.tokenizer.pad_token_id)
    batch = {name: tensor.to(answerer.device) for name, tensor in batch.items()}
    return {**batch, "mm_encoder_outputs": image_outputs(answerer.encode(images[:2]).clone())}


def gradients(answerer, batch):
    answerer.model.train()
    answerer.model.zero_grad()
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    answer_loss(answerer.model(**inputs, use_cache=False), batch["labels"]).backward()
    return {name: p.grad.clone() for name, p in answerer.model.named_parameters() if p.requires_grad}


def test_the_adapter_reaches_the_text_model_alone_and_is_seeded(base_folder):
    first = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=1)
    again = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=1)
    other = new_adapter(load_base(find_base(str(base_folder))), rank=4, alpha=8, dropout=0.0, seed=2)
    names = [name for name, p in first.named_parameters() if p.requires_grad]
    assert names and all("text_model" in name and "lora_" in name for name in names)
    weights = [dict(model.named_parameters())[names[0]] for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_gradients_after_an_evaluation_equal_those_before(base_folder, images):
    answerer = fresh(base_folder)
    batch = packed_batch(answerer, images)
    before = gradients(answerer, batch)
    answerer.answer_encoded(answerer.encode(images[:2]), QUESTIONS[:2])
    after = gradients(answerer, batch)
    assert before.keys() == after.keys() and all(g.abs().sum() > 0 for g in before.values())
    for name, gradient in before.items():
        assert torch.allclose(gradient, after[name], rtol=1e-4, atol=1e-7), name


def test_a_saved_adapter_answers_as_before_and_names_its_base(base_folder, images, tmp_path):
    answerer = fresh(base_folder)
    features = answerer.encode(images)
    before = answerer.answer_encoded(features, QUESTIONS)
    size = save_adapter(answerer, tmp_path / "adapter", images[0], note="here")
    assert size == adapter_mb(tmp_path / "adapter") < 50
    record = json.loads((tmp_path / "adapter" / "stkvlm.json").read_text())
    assert record["base"]["name"] == base_folder.name and record["note"] == "here"
    saved = "".join(f.read_text() for f in (tmp_path / "adapter").iterdir() if f.suffix in (".json", ".md", ".jinja"))
    assert str(base_folder) not in saved
    assert mean_image(tmp_path / "adapter").size == images[0].size
    again = load_answerer(tmp_path / "adapter", str(base_folder))
    assert again.answer_encoded(features, QUESTIONS) == before
    with again.without_adapter():
        assert again.answer_encoded(features, QUESTIONS) != before


def test_an_adapter_of_another_base_is_refused(base_folder, images, tmp_path):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(ModelError, match="made on base .* set BASE_MODEL"):
        load_answerer(tmp_path / "adapter", str(other))


def test_truncated_weights_are_named(base_folder, images, tmp_path):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="adapter: weights cannot be read"):
        load_answerer(tmp_path / "adapter", str(base_folder))


@pytest.fixture(scope="module")
def saved(base_folder, images, tmp_path_factory):
    """A small adapter folder."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    save_adapter(fresh(base_folder), folder, images[0])
    return folder


@pytest.fixture(scope="module")
def loaded(base_folder):
    """The base that it was made on, loaded once."""
    return load_base(find_base(str(base_folder)))


LAYER = "base_model.model.model.text_model.layers.0.mlp.down_proj.lora_{}.weight"


def not_a_number(weights):
    weights[LAYER.format("A")][0, 0] = float("nan")


def all_nan(weights):
    for tensor in weights.values():
        tensor.fill_(float("nan"))


def endless(weights):
    weights[LAYER.format("B")][-1, -1] = float("inf")


def integers(weights):
    weights[LAYER.format("A")] = weights[LAYER.format("A")].int()


def a_layer_missing(weights):
    for part in "AB":
        del weights[LAYER.format(part)]


def half_missing(weights):
    for name in sorted(weights)[::2]:
        del weights[name]


def renamed(weights):
    for name in sorted(weights):
        weights[name.replace("text_model", "other_model")] = weights.pop(name)


def a_layer_too_many(weights):
    for part in "AB":
        weights[LAYER.format(part).replace("layers.0", "layers.99")] = weights[LAYER.format(part)].clone()


def too_wide(weights):
    weights[LAYER.format("A")] = torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (not_a_number, "down_proj.lora_A.weight holds values that are no finite numbers"),
        (all_nan, "no finite numbers"),
        (endless, "down_proj.lora_B.weight holds values that are no finite numbers"),
        (integers, "no finite numbers"),
        (a_layer_missing, r"2 of \d+ tensors are missing"),
        (half_missing, "is missing"),
        (renamed, r"(\d+) of \1 tensors are missing"),
        (a_layer_too_many, "2 tensors are of no layer"),
        (too_wide, r"has shape \(4, 5\), the base needs"),
    ],
)
def test_weights_that_are_not_those_of_the_base_or_no_numbers_are_refused(saved, loaded, tmp_path, spoil, words):
    folder = shutil.copytree(saved, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    spoil(weights)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=f"adapter_model.safetensors: .*{words}.*restore it"):
        put_adapter(copy.deepcopy(loaded), read_adapter(folder))


def test_the_files_of_its_processor_have_no_part_in_loading_an_adapter(saved, base_folder, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "adapter")
    for name in ("tokenizer.json", "processor_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{")
    load_answerer(folder, str(base_folder))


def test_a_base_that_only_the_adapter_names_is_not_fetched(saved, tmp_path, monkeypatch):
    folder, asked = shutil.copytree(saved, tmp_path / "adapter"), []
    record = json.loads((folder / "stkvlm.json").read_text())
    record["base"] |= {"name": "owner/name", "revision": "0123"}
    (folder / "stkvlm.json").write_text(json.dumps(record))

    def snapshot(name, *, local_files_only, **options):
        asked.append(local_files_only)
        raise OSError("not here")

    monkeypatch.setattr(base_vlm, "snapshot_download", snapshot)
    with pytest.raises(
        ModelError, match="owner/name' is not in the local cache.*--base owner/name or BASE_MODEL=owner/name"
    ):
        load_answerer(folder)
    with pytest.raises(ModelError, match="cannot be had"):
        load_answerer(folder, "owner/name")
    assert asked == [True, False]


def test_a_mean_picture_is_read_as_every_other(tmp_path):
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown upright
    turned.save(tmp_path / "mean_image.png", exif=exif)
    assert mean_image(tmp_path).size == (20, 30)


def test_a_mean_picture_that_is_none_is_named(tmp_path):
    (tmp_path / "mean_image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with pytest.raises(ModelError, match="mean_image.png: no picture"):
        mean_image(tmp_path)


def test_an_oversized_adapter_is_refused(base_folder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "MAX_ADAPTER_MB", 0.1)
    with pytest.raises(ModelError, match="lower LORA_RANK"):
        save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])


@pytest.mark.parametrize("missing", ["adapter_config.json", "stkvlm.json", "mean_image.png"])
def test_an_incomplete_adapter_folder_is_named(base_folder, images, tmp_path, missing):
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    (tmp_path / "adapter" / missing).unlink()
    with pytest.raises((ModelError, FileNotFoundError), match="adapter"):
        load_answerer(tmp_path / "adapter", str(base_folder))
        mean_image(tmp_path / "adapter")


@pytest.mark.parametrize("folder", sorted((ROOT / "models").glob("*_adapter")), ids=lambda folder: folder.name)
def test_a_shipped_adapter_answers_on_the_shipped_base(folder, images):
    """It belongs to models/embedded as it is, is small, and has a card and the picture for its blind baseline."""
    answerer = load_answerer(folder)
    assert answerer.base == find_base(EMBEDDED)
    assert adapter_mb(folder) < 10
    assert "license: cc-by-sa-4.0" in (folder / "README.md").read_text(encoding="utf-8")
    assert mean_image(folder).size == (150, 100)
    assert answerer.answer(images[0], "What track is this?").text in TRACKS


def test_an_adapter_of_a_base_that_has_changed_says_to_train_again(base_folder, images, tmp_path):
    folder = tmp_path / base_folder.name
    save_adapter(fresh(base_folder), tmp_path / "adapter", images[0])
    make_base(folder, seed=5)
    with pytest.raises(ModelError, match=f"train the adapter again, or restore the {folder.name} that it was made on"):
        load_answerer(tmp_path / "adapter", str(folder))
