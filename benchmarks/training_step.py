"""What a training step costs in each way of laying it out, and where its time goes.

    python benchmarks/training_step.py [--base FOLDER] [--views 64] [--batch-size 16] [--rounds 5] [--profile]

Ways, forwards and backwards on the same batches, in turns so that other work on the machine meets all alike:

1. a row a picture: padded to the longest; logits wherever any row predicts (`packing.collate`)
2. pairs: the longest with the shortest in one row, logits at its end alone (`row_packing`), as notebook 03 trains
3. pairs, bf16: the same under bf16 autocast, for CPUs that multiply in it

Seconds of this process's cores (a machine that others work on too makes no difference to them) and on the wall, medians
over all steps; the ratio of the first way to each is of cores' seconds. --profile lists what the second spends them on.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence

import torch

from stkvlm_lib import markdown
from stkvlm_lib.config import FinetuneConfig
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.number_text import count
from stkvlm_lib.qa.drawn import PicturesOf
from stkvlm_lib.qa.generate import frames_by_split, write_qa_sets
from stkvlm_lib.qa.training_draw import read_questions
from stkvlm_lib.runs import device_name, set_seeds, set_up_torch
from stkvlm_lib.vlm.answering import AnswerModel, image_outputs
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.finetune import build_trainable
from stkvlm_lib.vlm.packing import collate
from stkvlm_lib.vlm.trainer import answer_loss
from stkvlm_lib.vlm.training_batches import Collator, Item, PackedPictures, Shares

PLAIN, PAIRS, BF16 = "a row a picture", "pairs", "pairs, bf16"
WAYS = (PLAIN, PAIRS, BF16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="default: the embedded one")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    set_up_torch()
    set_seeds(0)
    with tempfile.TemporaryDirectory() as folder:
        config = FinetuneConfig(run_dir=folder, base_model=options.base, train_views=options.views, precision="fp32")
        model, batches = read_batches(config, options.batch_size)
    print(device_name())
    print(markdown.table(rows(measure(model, batches, options.rounds), model, batches), right=True))
    if options.profile:
        print(profile(model, batches[0]))


def read_batches(config: FinetuneConfig, batch_size: int) -> tuple[AnswerModel, list[list[Item]]]:
    """The trainable model, and whole batches of what notebook 03 would draw."""
    frames = read_frames(config.frames_paths)
    write_qa_sets(frames_by_split(frames, 0), config.run_path / "qa")
    drawn, _ = read_questions(config, frames)
    model = build_trainable(config)
    tokens = FeatureStore(model, frames, 4).in_order(PicturesOf(drawn), "encode")
    pictures = PackedPictures(model.prompt, list(drawn), frames, [tensor.clone() for tensor in tokens])
    model.model.train()
    shares = Shares(len(drawn), batch_size, seed=0)
    return model, [[pictures[i] for i in batch] for batch in shares if len(batch) == batch_size]


def collated(model: AnswerModel, items: Sequence[Item], way: str) -> dict:
    """A batch on the model's device."""
    if way == PLAIN:
        packed, seen = zip(*items, strict=True)
        batch = collate(packed, model.prompt.tokenizer.pad_token_id)
        batch |= {"mm_encoder_outputs": image_outputs(torch.stack(seen))}
    else:
        batch = Collator(model)(items)
    features = image_outputs(batch.pop("mm_encoder_outputs")["image"].pooler_output.to(model.device))
    return {name: tensor.to(model.device) for name, tensor in batch.items()} | {"mm_encoder_outputs": features}


def step(model: AnswerModel, batch: dict, way: str) -> float:
    """Loss of a batch, with its gradients computed and thrown away."""
    inputs = dict(batch)
    labels = inputs.pop("labels")
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=way == BF16):
        loss = answer_loss(model.model(**inputs), labels)
    loss.backward()
    model.model.zero_grad()
    return loss.item()


Times = dict[str, list[tuple[float, float, float]]]
"""By way, of each step: seconds of the cores, seconds on the wall, loss."""


def measure(model: AnswerModel, batches: Sequence[Sequence[Item]], rounds: int) -> Times:
    """The first step of each way is not counted."""
    times: Times = {way: [] for way in WAYS}
    for way in WAYS:
        step(model, collated(model, batches[0], way), way)
    for _ in range(rounds):
        for items in batches:
            for way in WAYS:
                batch = collated(model, items, way)
                cores, wall = time.process_time(), time.monotonic()
                loss = step(model, batch, way)
                times[way].append((time.process_time() - cores, time.monotonic() - wall, loss))
    return times


def rows(times: Times, model: AnswerModel, batches: Sequence[Sequence[Item]]) -> list[dict[str, str]]:
    """A row a way; padding and logits over all batches."""
    median = {way: [statistics.median(column) for column in zip(*steps, strict=True)] for way, steps in times.items()}
    told = []
    for way, (cores, wall, _) in median.items():
        laid = [collated(model, items, way) for items in batches]
        places = sum(batch["input_ids"].numel() for batch in laid)
        real = sum(len(packed.input_ids) for items in batches for packed, _ in items)
        logits = sum(batch["labels"].numel() for batch in laid)
        told.append(
            {
                "way": way,
                "cores, s a step": f"{cores:.2f}",
                "wall, s a step": f"{wall:.2f}",
                "times as fast": f"{median[PLAIN][0] / cores:.2f}",
                "padding": f"{1 - real / places:.0%}",
                "places with logits": count(logits),
                "mean loss": f"{statistics.mean(loss for *_, loss in times[way]):.5f}",
            }
        )
    return told


def profile(model: AnswerModel, items: Sequence[Item]) -> str:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    batch = collated(model, items, PAIRS)
    with recording(activities=[ProfilerActivity.CPU]) as found:
        step(model, batch, PAIRS)
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=44)


if __name__ == "__main__":
    main()
