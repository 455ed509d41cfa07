"""One image with all its questions in one sequence must read like separate sequences."""

from pathlib import Path

import pytest
import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.grammar.questions import ask_all
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.pretraining.embedded import INPUT_SIZE, PATCH_SIZE, PIXEL_SHUFFLE, build_processor
from stkvlm_lib.vlm.packing import (
    IGNORE,
    Options,
    PackedExample,
    Segment,
    collate,
    collate_options,
    pack,
    pack_options,
    segment_mask,
)

FRAMES = Path(__file__).parent.parent / "frames"
PREFIX = (1, 2, 3)
SEGMENTS = (Segment((10, 11, 12), 1), Segment((20, 21, 22, 23), 2), Segment((30,), 0))


# Laying out one sequence


def test_pack_lays_out_prefix_and_segments():
    example = pack(PREFIX, SEGMENTS)
    assert example.input_ids == [1, 2, 3, 10, 11, 12, 20, 21, 22, 23, 30]
    assert example.position_ids == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 3]
    assert example.segment_ids == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert example.labels == [IGNORE] * 5 + [12] + [IGNORE] * 2 + [22, 23] + [IGNORE]


def test_pack_without_segments_is_the_prefix():
    assert pack(PREFIX, []) == PackedExample([1, 2, 3], [0, 1, 2], [0, 0, 0], [IGNORE] * 3)


def test_pack_options_lays_out_questions_and_answers():
    """As drawn in its docstring, with stop tokens 9, which are predicted and not read."""
    asked = [Options((10, 11), ((20, 9), (30, 31, 9))), Options((12,), ((40, 9),), course=True)]
    packed = pack_options((1, 2), asked)
    assert packed.input_ids == [1, 2, 10, 11, 20, 30, 31, 12, 40]
    assert packed.position_ids == [0, 1, 2, 3, 4, 4, 5, 2, 3]
    assert packed.segment_ids == [0, 0, 1, 1, 2, 3, 3, 4, 5]
    assert packed.parent_ids == [0, 0, 0, 0, 1, 1, 1, 0, 4]
    assert packed.targets == [(20, 9), (30, 31, 9), (40, 9)]
    assert packed.predictors == [[3, 4], [3, 5, 6], [7, 8]]
    assert packed.course == [False, False, True]
    assert [len(options) for options in asked] == [5, 2]


# Who sees whom


def test_segment_mask_by_brute_force():
    """Every pair of positions, for rows of different lengths; what padding itself sees does not matter."""
    rows = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 3], [0, 0, 0, 1, 2, -1, -1, -1], [0, 1, 1, 1, 1, 1, 1, 1]])
    mask = segment_mask(rows)
    assert mask.shape == (3, 1, 8, 8) and mask.dtype == torch.bool
    for b, row in enumerate(rows.tolist()):
        for i in range(8):
            for j in range(8):
                if row[i] != -1:
                    assert mask[b, 0, i, j].item() == (j <= i and row[j] in (0, row[i])), (b, i, j)


def test_an_answer_sees_its_question_and_no_other_answer():
    asked = [Options((10, 11), ((20, 9), (30, 31, 9))), Options((12,), ((40, 9),))]
    mask = collate_options([pack_options((1, 2), asked), pack_options((1,), asked[1:])], 99)["attention_mask"]
    assert [i for i in range(9) if mask[0, 0, 4, i]] == [0, 1, 2, 3, 4]
    assert [i for i in range(9) if mask[0, 0, 6, i]] == [0, 1, 2, 3, 5, 6]
    assert [i for i in range(9) if mask[0, 0, 7, i]] == [0, 1, 7]
    assert [i for i in range(9) if mask[0, 0, 8, i]] == [0, 1, 7, 8]
    assert [i for i in range(9) if mask[1, 0, 2, i]] == [0, 1, 2]
    assert mask.any(-1).all()


def test_no_row_of_the_mask_is_empty():
    """A position that sees nothing gives NaN in attention, also at padding."""
    assert segment_mask(torch.tensor([[0, 1, -1, -1], [0, 0, 1, 2]])).any(-1).all()


# Batches


def test_collate_pads_and_lines_labels_up_with_what_each_position_predicts():
    examples = [pack(PREFIX, SEGMENTS), pack(PREFIX[:2], [Segment((40, 41, 42), 2)]), pack(PREFIX, SEGMENTS[1:2])]
    batch = collate(examples, pad_id=99)
    keep = batch["logits_to_keep"].tolist()
    assert batch["input_ids"].shape == batch["position_ids"].shape == (3, 11)
    assert batch["attention_mask"].shape == (3, 1, 11, 11)
    assert batch["labels"].shape == (3, len(keep))
    wanted = [  # (row, position that predicts, token that comes next), read off the layout by hand
        {(0, 4, 12), (0, 7, 22), (0, 8, 23)},
        {(1, 2, 41), (1, 3, 42)},
        {(2, 4, 22), (2, 5, 23)},
    ]
    assert keep == sorted({position for row in wanted for _, position, _ in row})
    for number, example in enumerate(examples):
        n = len(example.input_ids)
        assert batch["input_ids"][number].tolist() == example.input_ids + [99] * (11 - n)
        assert batch["position_ids"][number, :n].tolist() == example.position_ids
        labels = batch["labels"][number].tolist()
        found = {(number, p, label) for p, label in zip(keep, labels, strict=True) if label != IGNORE}
        assert found == wanted[number]


def test_collate_hides_padding_from_every_real_position():
    short, long = pack(PREFIX, SEGMENTS[:1]), pack(PREFIX, SEGMENTS)
    mask = collate([short, long], pad_id=0)["attention_mask"]
    n = len(short.input_ids)
    assert not mask[0, 0, :n, n:].any()
    assert torch.equal(mask[0, 0, :n, :n], collate([short], pad_id=0)["attention_mask"][0, 0])


# Through a model: a small random Idefics3 that really looks at a picture


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model(processor):
    """Two layers each; weights large enough that every token a position sees shows in its logits."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.15}
    special = {
        "pad_token_id": processor.tokenizer.pad_token_id,
        "bos_token_id": processor.tokenizer.bos_token_id,
        "eos_token_id": processor.tokenizer.eos_token_id,
    }
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "image_size": INPUT_SIZE,
            "patch_size": PATCH_SIZE,
            **layers,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "vocab_size": len(processor.tokenizer),
            "max_position_embeddings": 512,
            **layers,
            **special,
        },
        scale_factor=PIXEL_SHUFFLE,
        image_token_id=processor.image_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    model = Idefics3ForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    assert model.dtype == torch.float32
    return model


@pytest.fixture(scope="module")
def two_pictures(processor):
    """Two views with several karts each: (pixel_values, [prefix, prefix], [segments, segments])."""
    views = [view for view in read_frames(FRAMES).views("valid") if len(read_scene(view).karts) >= 3]
    views = [views[0], views[-1]]
    encoded = processor(text=["<|im_start|>User:<image>"] * 2, images=[[v.image()] for v in views], return_tensors="pt")
    segments = [[segment(processor, q, a) for _, q, a in ask_all(read_scene(view))] for view in views]
    assert len(segments[0]) != len(segments[1])  # rows of different lengths
    return encoded["pixel_values"], encoded["input_ids"].tolist(), segments


def segment(processor, question: str, answer: str) -> Segment:
    tokenizer = processor.tokenizer
    lead = tokenizer.encode(f"{question}<end_of_utterance>\nAssistant:", add_special_tokens=False)
    told = tokenizer.encode(f" {answer}<end_of_utterance>", add_special_tokens=False)
    return Segment((*lead, *told), len(told))


@torch.no_grad()
def logits_of(model, examples: list[PackedExample], pixels: torch.Tensor, **changes) -> torch.Tensor:
    """All logits (B, T, V); `changes` replace entries of the batch."""
    batch = collate(examples, pad_id=model.config.pad_token_id)
    del batch["labels"], batch["logits_to_keep"]
    return model(**(batch | changes), pixel_values=pixels, use_cache=False).logits


@torch.no_grad()
def separate_logits(model, ids: list[int], pixels: torch.Tensor) -> torch.Tensor:
    """Logits (T, V) of one prefix with one question, without a packed mask or position ids."""
    return model(input_ids=torch.tensor([ids]), pixel_values=pixels[None], use_cache=False).logits[0]


def test_packed_logits_equal_separate_sequences(model, two_pictures):
    pixels, prefixes, segments = two_pictures
    examples = [pack(prefix, parts) for prefix, parts in zip(prefixes, segments, strict=True)]
    packed = logits_of(model, examples, pixels)
    wrong = logits_of(model, examples, pixels, position_ids=torch.arange(packed.shape[1]).expand(2, -1))
    worst, worst_wrong = 0.0, 0.0
    for row, (prefix, parts) in enumerate(zip(prefixes, segments, strict=True)):
        start = len(prefix)
        for part in parts:
            apart = separate_logits(model, [*prefix, *part.ids], pixels[row])[len(prefix) :]
            here = slice(start, start + len(part.ids))
            worst = max(worst, (packed[row, here] - apart).abs().max().item())
            worst_wrong = max(worst_wrong, (wrong[row, here] - apart).abs().max().item())
            start += len(part.ids)
        assert start == len(examples[row].input_ids)
    assert worst < 1e-4
    assert worst_wrong > 1e-2  # the comparison would notice positions that do not restart


def test_no_segment_sees_another(model, processor, two_pictures):
    """Replacing every token of one segment changes its own logits and no others."""
    pixels, prefixes, segments = two_pictures
    parts = segments[0][:4]
    before = pack(prefixes[0], parts)
    base = logits_of(model, [before], pixels[:1])[0]
    numbers = torch.tensor(before.segment_ids)
    start = processor.tokenizer.encode(" tux", add_special_tokens=False)[0]
    for changed, part in enumerate(parts, start=1):
        other = Segment(tuple(start if i != start else start + 1 for i in part.ids), part.n_answer)
        after = pack(prefixes[0], [*parts[: changed - 1], other, *parts[changed:]])
        shift = (logits_of(model, [after], pixels[:1])[0] - base).abs().amax(-1)
        assert shift[numbers != changed].max() < 1e-5
        assert shift[numbers == changed].min() > 1e-3
    plain = torch.ones(1, 1, len(numbers), len(numbers), dtype=torch.bool).tril()
    seen = (logits_of(model, [before], pixels[:1], attention_mask=plain)[0] - base).abs().amax(-1)
    assert seen[numbers == 2].max() > 1e-3  # under a plain causal mask segments do see each other


def test_every_segment_sees_the_picture(model, two_pictures):
    pixels, prefixes, segments = two_pictures
    example = pack(prefixes[0], segments[0])
    shift = logits_of(model, [example], pixels[:1]) - logits_of(model, [example], pixels[1:])
    numbers = torch.tensor(example.segment_ids)
    for number in range(1, len(segments[0]) + 1):
        assert shift[0, numbers == number].abs().max() > 1e-3


def test_padding_and_neighbours_in_the_batch_change_nothing(model, two_pictures):
    pixels, prefixes, segments = two_pictures
    short, long = pack(prefixes[0], segments[0][:1]), pack(prefixes[1], segments[1])
    together = logits_of(model, [short, long], pixels)
    assert not together.isnan().any()
    n = len(short.input_ids)
    assert (together[0, :n] - logits_of(model, [short], pixels[:1])[0]).abs().max() < 1e-4
    assert (together[1] - logits_of(model, [long], pixels[1:])[0]).abs().max() < 1e-4


def test_kept_logits_are_those_that_predict_the_answers(model, processor, two_pictures):
    """The labels of a batch, read beside the logits kept, are each row's answers with their stop tokens, in order."""
    pixels, prefixes, segments = two_pictures
    examples = [pack(prefix, parts) for prefix, parts in zip(prefixes, segments, strict=True)]
    batch = collate(examples, pad_id=model.config.pad_token_id)
    labels = batch.pop("labels")
    with torch.no_grad():
        kept = model(**batch, pixel_values=pixels, use_cache=False).logits
    every = logits_of(model, examples, pixels)
    assert kept.shape[:2] == labels.shape
    assert torch.allclose(kept, every[:, batch["logits_to_keep"]], atol=1e-5)
    assert labels.shape[1] < every.shape[1] / 2
    for row, parts in enumerate(segments):
        told = [token for part in parts for token in part.ids[-part.n_answer :]]
        assert labels[row][labels[row] != IGNORE].tolist() == told
        assert told.count(processor.tokenizer.eos_token_id) == len(parts)


@pytest.mark.parametrize("n_answer", [2, 3, -1])
def test_an_answer_needs_something_before_it(n_answer):
    with pytest.raises(ValueError, match="cannot have an answer"):
        Segment((5, 6), n_answer)
