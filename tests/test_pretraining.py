"""Pretraining of the embedded base: its stages, resuming, and the exported model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import copy_frames, make_base, make_model
from torch.optim import _muon
from transformers import AutoModelForImageTextToText, AutoProcessor

from stkvlm_lib.files import sha256
from stkvlm_lib.pretraining import word_stage
from stkvlm_lib.pretraining.__main__ import begin, export, main
from stkvlm_lib.pretraining.dense_labels import DenseHeads
from stkvlm_lib.pretraining.embedded import GRID, build_model, build_processor
from stkvlm_lib.pretraining.image_tokens import CHUNK, EncodedPictures, encode_all, encode_drawn
from stkvlm_lib.pretraining.language_stage import LanguageStage, right_answers
from stkvlm_lib.pretraining.pictures import Pictures
from stkvlm_lib.pretraining.prompts import PROMPTS, TASKS, WORDED
from stkvlm_lib.pretraining.training import CheckpointError, Mean, StageConfig, StageTraining, Steps
from stkvlm_lib.pretraining.vision_stage import BLOCK, BLOCKS_SEEN, VisionStage, encode, every_patch, some_blocks
from stkvlm_lib.pretraining.word_stage import WordEmbedding, WordStage, principal, read_vectors
from stkvlm_lib.vlm.base_vlm import ModelError
from stkvlm_lib.vlm.packing import IGNORE

TINY = StageConfig(steps=3, batch_size=2, warmup_steps=1, seed=3)


@pytest.fixture(autouse=True)
def quick_muon(monkeypatch):
    """torch's Muon multiplies in bfloat16, which CPUs without it emulate a hundred times slower; here it takes each
    gradient's own direction."""
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda grad, *_: grad / (grad.norm() + 1e-9))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two bundled frames of train and one of valid."""
    return copy_frames(copy_frames(tmp_path_factory.mktemp("frames"), "train", 2), "valid", 1)


@pytest.fixture(scope="module")
def pictures(data) -> Pictures:
    return Pictures([data])


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def vision(processor) -> StageTraining:
    torch.manual_seed(0)
    return StageTraining(VisionStage(make_model(processor).model.vision_model), TINY)


def language(processor) -> StageTraining:
    torch.manual_seed(0)
    model = make_model(processor)
    heads = DenseHeads(model.model.vision_model.config.hidden_size)
    return StageTraining(LanguageStage(model, processor, heads), TINY)


def words(processor) -> StageTraining:
    """Half of the vocabulary starts where earlier stages left it, half where its meaning puts it."""
    torch.manual_seed(0)
    model = make_model(processor)
    table = model.get_input_embeddings().weight.detach().clone()
    table[::2] = torch.nan
    vectors = torch.randn(len(table), 300) / 300**0.5
    return StageTraining(WordStage(model, processor, WordEmbedding(vectors, torch.randn(300, 256) / 16, table)), TINY)


STAGES = pytest.mark.parametrize("stage", [vision, language, words])


@pytest.fixture
def shown(pictures, encoded):
    """Stage -> the pictures that it learns from."""
    return lambda stage: encoded if stage is words else pictures


@pytest.fixture(scope="module")
def encoded(processor, pictures, tmp_path_factory) -> EncodedPictures:
    torch.manual_seed(1)
    return encode_drawn(pictures, words(processor).stage.encode, 5, 0, tmp_path_factory.mktemp("encoded"))


def weights(training: StageTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.stage.trained.state_dict().items()}


def step(training: StageTraining, pictures: Pictures) -> dict:
    return training.train_step(pictures, *Steps(training.stage, pictures, training.config)[training.step])


def train(training: StageTraining, pictures: Pictures) -> StageTraining:
    while training.step < training.config.steps:
        step(training, pictures)
    return training


# What is looked at


def test_blocks_with_karts_come_first_and_whole():
    covered = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    covered[0, BLOCK + 1, 2 * BLOCK + 1] = covered[0, 0, 0] = True  # in the blocks at (1, 2) and (0, 0)
    index = some_blocks(covered.flatten(1))
    assert index.shape == (2, BLOCKS_SEEN * BLOCK**2)
    seen = torch.zeros(2, GRID * GRID, dtype=torch.bool).scatter_(1, index, True).view(2, GRID, GRID)
    assert (seen.flatten(1).sum(1) == index.shape[1]).all()  # none twice
    assert seen[0, BLOCK : 2 * BLOCK, 2 * BLOCK : 3 * BLOCK].all() and seen[0, :BLOCK, :BLOCK].all()
    blocks = seen.view(2, GRID // BLOCK, BLOCK, GRID // BLOCK, BLOCK).float().mean((2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(some_blocks(covered.flatten(1)), index)


def test_the_tower_sees_through_encode_what_it_sees_by_itself(processor):
    torch.manual_seed(0)
    model = make_model(processor).eval()
    tower = model.model.vision_model
    pixels = torch.rand(2, 3, tower.config.image_size, tower.config.image_size)
    with torch.no_grad():
        whole = tower(pixel_values=pixels * 2 - 1).last_hidden_state
        assert torch.allclose(encode(tower, pixels), whole, atol=1e-5)
        assert torch.allclose(encode(tower, pixels, every_patch(2, pixels.device)), whole, atol=1e-5)


# All stages


@STAGES
def test_a_stage_trains_all_its_parts_and_nothing_else(stage, processor, shown):
    pictures = shown(stage)
    training = stage(processor)
    training.step = training.config.steps - 1  # where the tower feels the answers
    start = weights(training)
    values = step(training, pictures)
    assert all(np.isfinite(float(value)) or value.isnan() for value in values.values())
    moved = {name.split(".")[0] for name, value in weights(training).items() if (value != start[name]).any()}
    assert moved == set(training.stage.trained)


def test_the_tower_does_not_feel_the_first_answers(processor, pictures):
    """Its gradients are those of the dense labels alone, later not."""
    training = language(processor)
    labels = training.stage.labels(pictures, batch := pictures.draw(0, 0, 2))
    heads, tower = training.stage.heads, training.stage.model.model.vision_model
    pixels = pictures.show(batch)
    parameter = tower.embeddings.patch_embedding.weight
    dense, _ = heads(encode(tower, pixels), labels, every_patch(2, pixels.device))
    (alone,) = torch.autograd.grad(dense, parameter)
    first, later = (torch.autograd.grad(training.stage.loss(pixels, labels, s)[0], parameter)[0] for s in (0.0, 0.5))
    assert torch.allclose(first, alone, atol=1e-6)
    assert not torch.allclose(later, alone, atol=1e-6)


def test_batches_made_ahead_are_the_same(processor, pictures, tmp_path):
    """Worker processes change nothing but the time."""
    expected = weights(train(language(processor), pictures))
    training = language(processor)
    training.run(pictures, pictures, tmp_path, "language", workers=2)
    assert all(torch.equal(value, expected[name]) for name, value in weights(training).items())


@STAGES
def test_an_interrupted_training_ends_with_the_same_weights(stage, processor, shown, tmp_path):
    pictures = shown(stage)
    expected = weights(train(stage(processor), pictures))
    first = stage(processor)
    step(first, pictures)
    first.seconds = 12.5
    first.save(tmp_path / "stage.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["stage.pt"]
    second = stage(processor)
    torch.manual_seed(99)
    second.restore(tmp_path / "stage.pt")
    assert (second.step, second.seconds) == (1, 12.5)
    assert not all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    train(second, pictures)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())


@STAGES
def test_evaluating_in_between_changes_nothing(stage, processor, shown):
    pictures = shown(stage)
    expected = weights(train(stage(processor), pictures))
    training = stage(processor)
    step(training, pictures)
    first, again = training.evaluate(pictures, size=4), training.evaluate(pictures, size=4)
    assert first == again and np.isfinite(list(first.values())).all()
    train(training, pictures)
    assert all(torch.equal(value, expected[name]) for name, value in weights(training).items())


def test_a_checkpoint_of_other_settings_is_refused(processor, tmp_path):
    training = vision(processor)
    training.save(tmp_path / "a")
    training.config = replace(TINY, seed=4)
    with pytest.raises(CheckpointError, match="other settings"):
        training.restore(tmp_path / "a")


def test_rates_warm_up_stay_and_fall(processor):
    training = vision(processor)
    training.config = replace(TINY, steps=100, warmup_steps=10, falling=0.45)
    rates = []
    for training.step in range(100):
        rates.append(training.rate())
    assert rates[0] == pytest.approx(0.1) and rates[9:50] == [1.0] * 41
    falling = rates[57:]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.05
    training.config = replace(training.config, falling=0.0)
    assert training.rate() == 1.0


def test_a_mean_weighs_and_starts_anew():
    mean = Mean()
    mean.add({"a": 1.0}, 3)
    mean.add({"a": torch.tensor(5.0), "b": 2.0, "c": float("nan")}, 1)
    mean.add({"a": float("nan")}, 7)
    assert mean.take() == {"a": 2.0, "b": 2.0}
    assert mean.take() == {}


# The language stage


def test_tasks_are_laid_out_as_the_processor_lays_out_a_message(processor, pictures):
    """What pretraining feeds is what answering feeds, so that nothing has to be relearned."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "where tux"}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    expected = processor(text=[text], images=[[pictures.views[0].image()]])["input_ids"][0]
    prompt = language(processor).stage.prompt
    assert [*prompt.prefix, *prompt.question("where tux")] == expected


def test_an_answer_is_right_to_the_last_token():
    where, ego = TASKS.index("where"), TASKS.index("ego")
    tasks = torch.tensor([[where, ego], [ego, -1]])
    labels = torch.tensor([[5, 6, 7, 1], [8, 1, IGNORE, IGNORE]])
    segments = torch.tensor([[1, 1, 2, 2], [1, 1, 0, 0]])

    def right(said: list) -> dict:
        values = right_answers(torch.tensor(said), labels, segments, tasks)
        return {name: float(value) for name, value in values.items() if not value.isnan()}

    assert right(labels.clamp(min=0).tolist()) == {"where": 1.0, "ego": 1.0}
    assert right([[5, 0, 7, 1], [8, 1, 0, 0]]) == {"where": 0.0, "ego": 1.0}
    assert right([[5, 6, 7, 0], [8, 1, 0, 0]]) == {"where": 1.0, "ego": 0.5}


# The word stage


def test_a_word_starts_where_it_was_or_where_its_meaning_puts_it():
    vectors, projection = torch.randn(3, 5), torch.randn(5, 4)
    table = torch.full((3, 4), torch.nan)
    table[1] = torch.randn(4)
    embedding = WordEmbedding(vectors, projection, table)
    assert torch.allclose(embedding.table()[1], table[1], atol=1e-6)
    assert torch.allclose(embedding.table()[[0, 2]], (vectors @ projection)[[0, 2]])
    assert torch.equal(embedding(torch.tensor([[2, 1]])), embedding.table()[[2, 1]][None])


def test_a_word_that_is_never_met_keeps_its_place_beside_its_synonym(processor, encoded):
    """Both move by what all words share; neither gets anything of its own."""
    training = words(processor)
    before = training.stage.words.own.detach().clone()
    ids = training.stage.labels(encoded, encoded.draw(3, 0, 2))["input_ids"]
    step(training, encoded)
    moved = (training.stage.words.own.detach() - before * (1 - 1e-3 * 0.05)).abs().amax(1) > 1e-4
    assert set(moved.nonzero()[:, 0].tolist()) <= set(ids.flatten().tolist())
    assert not moved.all() and moved.any()


def test_the_learnt_embeddings_end_in_the_model(processor, encoded):
    training = train(words(processor), encoded)
    training.stage.finish()
    assert torch.equal(training.stage.model.get_input_embeddings().weight, training.stage.words.table())


def test_a_picture_has_worded_questions_one_that_nothing_answers_and_prompts(processor, encoded):
    labels = words(processor).stage.labels(encoded, encoded.draw(0, 0, 4))
    named = [{TASKS[n] for n in row if n >= 0} for row in labels["tasks"].tolist()]
    assert all({"unknown", "task_of"} <= names for names in named)
    assert labels["segments"].max() <= WORDED + PROMPTS + 2


def test_pictures_are_encoded_once(pictures, tmp_path):
    def encode_mean(pixels):
        calls.append(len(pixels))
        return pixels.mean((2, 3))[:, None]

    calls: list[int] = []
    first = encode_drawn(pictures, encode_mean, 70, 2, tmp_path)
    again = encode_drawn(pictures, encode_mean, 70, 2, tmp_path)
    assert calls == [CHUNK, CHUNK] and len(first) == 2 * CHUNK
    drawn = first.draw(0, 5, 6)
    assert torch.equal(first.show(drawn), again.show(drawn)) and first.show(drawn).shape == (6, 1, 3)
    assert [a.indices.tolist() for a in first.in_order(100)] == [list(range(100)), list(range(100, 128))]
    unaltered = encode_all(pictures, encode_mean, tmp_path)
    assert len(unaltered) == len(pictures)
    assert torch.allclose(
        unaltered.tokens[0].float(), encode_mean(pictures.show(next(pictures.in_order(1))))[0], atol=1e-3
    )


def test_a_scene_of_an_encoded_picture_is_that_of_its_window(pictures, encoded):
    drawn = encoded.draw(0, 0, 3)
    batch = pictures.draw(0, 0, CHUNK)
    assert encoded.scenes(drawn) == [pictures.scene(batch, i) for i in drawn.indices]


# The vectors of words


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    """A folder of word vectors of six tokens."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    table = torch.arange(6 * 384).view(6, 384) % 7
    save_file({word_stage.TABLE: table.float()}, folder / "model.safetensors")
    ids = {"left": 0, "right": 1, "##s": 2, "map": 3, "<pad>": 4, "xyzzy": 5}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": ids}}))
    hashes = {name: sha256([folder / name]) for name in word_stage.FILES}
    monkeypatch.setattr(word_stage, "FILES", hashes)
    return folder


def test_vectors_are_those_of_the_same_tokens_centred(vectors):
    rows = read_vectors(vectors, {"map": 0, "tux": 1, "<pad>": 2, "left": 3, "##s": 4})
    assert rows.shape == (5, 384)
    assert not rows[[1, 2]].any() and rows[[0, 3, 4]].any(1).all()
    assert torch.allclose(rows.sum(0), torch.zeros(384), atol=1e-5)
    assert rows[[0, 3, 4]].norm(dim=1).mean() == pytest.approx(1)


def test_other_vectors_are_refused(vectors):
    (vectors / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer.json: missing, or not that of all-MiniLM-L6-v2"):
        read_vectors(vectors, {})


def test_the_projection_keeps_the_directions_that_differ_most():
    vectors = torch.randn(50, 3) @ torch.diag(torch.tensor([5.0, 0.01, 3.0]))
    projection = principal(vectors, 2)
    assert projection.shape == (3, 2) and projection[1].abs().max() < 0.05
    assert torch.allclose(projection.T @ projection, torch.eye(2), atol=1e-5)


# The command


def test_the_exported_model_is_fp16_and_answers_like_the_trained_one(processor, pictures, tmp_path):
    torch.manual_seed(0)
    model = build_model(processor).eval()
    export(model, processor, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 25e6
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float16
    again = AutoProcessor.from_pretrained(tmp_path)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What track is this?"}]}
    text = again.apply_chat_template([message], add_generation_prompt=True)
    batch = again(text=[text], images=[[pictures.views[0].image()]], return_tensors="pt")
    with torch.no_grad():
        ours, theirs = model(**batch).logits, loaded.float().eval()(**batch).logits
    assert (ours - theirs).abs().max() < 0.02 * ours.abs().max()


def test_the_command_trains_logs_and_exports_and_a_second_call_only_exports(data, vectors, tmp_path, monkeypatch):
    out, work = tmp_path / "model", tmp_path / "work"
    settings = ["--vision-steps", "1", "--language-steps", "1", "--vision-batch", "2", "--language-batch", "2"]
    settings += ["--word-steps", "1", "--word-batch", "2", "--encoded", "2", "--vectors", str(vectors)]
    command = ["pretraining", "--frames", str(data), "--out", str(out), "--work", str(work), *settings]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("stkvlm_lib.pretraining.__main__.set_up_torch", lambda: None)
    monkeypatch.setattr("stkvlm_lib.pretraining.__main__.build_model", make_model)
    main()
    first = (out / "model.safetensors").read_bytes()
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("vision", 1), ("language", 1), ("words", 1)]
    assert "kart_right" in rows[0]["valid"] and "track" in rows[1]["valid"]
    shutil.rmtree(out)
    main()
    assert (out / "model.safetensors").read_bytes() == first
    assert len((work / "log.jsonl").read_text().splitlines()) == 3
    monkeypatch.setattr("sys.argv", [*command, "--seed", "1"])
    with pytest.raises(SystemExit):
        main()
    other = [*command[:5], "--work", str(tmp_path / "other"), *settings, "--start", str(out)]
    monkeypatch.setattr("sys.argv", other)
    main()
    rows = [json.loads(line) for line in (tmp_path / "other" / "log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["words"]  # the base that was there sees already


def test_a_base_with_another_tokenizer_is_no_start(tmp_path):
    """As long as the one made here, so that the weights have all its tokens; two words have changed places."""
    make_base(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words["car"], words["track"] = words["track"], words["car"]
    path.write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ModelError, match="its tokenizer is another"):
        begin(tmp_path)
