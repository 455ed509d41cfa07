"""Train the embedded base from scratch:
`python -m stkvlm_lib.pretraining --frames frames GAME COURSE --vectors MINILM --out FOLDER`.

Three stages on train races only: the vision tower on dense labels of parts of pictures; the whole model on short
prompts; and the text model, the tower frozen, on questions in many words (the course's own wordings stay for QLoRA).
With `--start BASE` the first two are left out, and the third goes on from what that base reads. Interrupt it at any
time; the same command goes on from its last checkpoint.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from stkvlm_lib.device import pick_device
from stkvlm_lib.pretraining.embedded import build_model, build_processor, written_tokens
from stkvlm_lib.pretraining.image_tokens import encode_all, encode_drawn
from stkvlm_lib.pretraining.language_stage import LanguageStage
from stkvlm_lib.pretraining.pictures import Pictures
from stkvlm_lib.pretraining.training import CheckpointError, StageConfig, StageTraining
from stkvlm_lib.pretraining.vision_stage import VisionStage
from stkvlm_lib.pretraining.word_stage import WordEmbedding, WordStage, principal, read_vectors
from stkvlm_lib.runs import set_up_hub, set_up_torch
from stkvlm_lib.vlm.base_vlm import ModelError, find_base, load_processor

SIZES = {
    "vision-steps": 2900,
    "vision-batch": 512,
    "language-steps": 2900,
    "language-batch": 256,
    "word-steps": 1200,
    "word-batch": 32,
}
ENCODED = 7104
"""Pictures that the third stage sees, each as it was drawn once."""
FALLING = 0.6
"""The learning rates fall over this share of the second and third stage; the first hands over at full rate."""
WORD_RATE = 1e-3


def see(
    train: Pictures, valid: Pictures, work: Path, vision: StageConfig, language: StageConfig, fast: bool, workers: int
) -> nn.Module:
    """The first two stages, each from its checkpoint in `work` if there is one. fast: compile the tower; workers:
    processes that prepare batches."""
    torch.manual_seed(vision.seed)
    processor = build_processor()
    model = build_model(processor).to(train.device)
    tower = model.model.vision_model
    if fast:
        for layer in tower.encoder.layers:
            layer.compile()
    eyes = VisionStage(tower)
    eyes.heads.to(train.device)
    StageTraining(eyes, vision).run(train, valid, work, "vision", workers=workers)
    stage = LanguageStage(model, processor, eyes.heads)
    StageTraining(stage, language).run(train, valid, work, "language", workers=workers)
    return model


def read(
    model: nn.Module,
    train: Pictures,
    valid: Pictures,
    work: Path,
    config: StageConfig,
    vectors: Path,
    n: int,
    reads: bool,
    workers: int,
) -> None:
    """The third stage, on n pictures that are drawn and encoded once, from its checkpoint in `work` if there is one.

    vectors: folder of the word vectors. reads: whether the model has been through this stage, and goes on from the
    words that it knows.
    """
    processor = build_processor()
    tokens = processor.tokenizer.get_vocab()
    meanings = read_vectors(vectors, tokens).to(train.device)
    table = model.get_input_embeddings().weight.detach().clone()
    if reads:
        projection = torch.linalg.lstsq(meanings, table).solution
    else:
        projection = principal(meanings, table.shape[1])
        met = torch.zeros(len(table), dtype=torch.bool)
        met[sorted(written_tokens(processor.tokenizer))] = True
        projection *= table[met].norm(dim=1).mean() / (meanings @ projection).norm(dim=1).mean()
        table[~met] = torch.nan
    words = WordEmbedding(meanings, projection, table).to(train.device)
    stage = WordStage(model.requires_grad_(False), processor, words)
    stage.trained.requires_grad_(True)
    seen = encode_drawn(train, stage.encode, n, config.seed, work / "encoded")
    unaltered = encode_all(valid, stage.encode, work / "encoded")
    StageTraining(stage, config).run(seen, unaltered, work, "words", workers=workers)
    stage.finish()


def begin(folder: Path) -> nn.Module:
    """A base that sees and reads already. Raises ModelError where its tokenizer is not that of `build_processor`."""
    base = find_base(str(folder.absolute()))
    if load_processor(base).tokenizer.get_vocab() != build_processor().tokenizer.get_vocab():
        raise ModelError(f"{folder}: its tokenizer is another than the one made here; leave --start out")
    return AutoModelForImageTextToText.from_pretrained(base.folder, dtype=torch.float32)


def export(model: nn.Module, processor, folder: Path) -> None:
    """Model (fp16 safetensors), tokenizer, processor and chat template in the Hugging Face layout."""
    processor.save_pretrained(folder)
    half = build_model(processor)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="+", default=["frames"], help="data folders; the first has valid/ too")
    parser.add_argument("--shares", nargs="+", type=float, help="of each folder in a batch (default: the same of all)")
    parser.add_argument("--out", type=Path, default=Path("models/embedded"), help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretrain"), help="checkpoints and log")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--encoded", type=int, default=ENCODED, help="pictures that the third stage sees")
    parser.add_argument("--vectors", type=Path, required=True, help="folder with the files of all-MiniLM-L6-v2")
    parser.add_argument("--start", type=Path, help="a base that goes through the third stage once more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="faster after a minute; needs a C++ compiler")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    args = parser.parse_args()
    set_up_torch()
    set_up_hub("")
    falling = {"falling": FALLING, "seed": args.seed}
    vision = StageConfig(args.vision_steps, args.vision_batch, seed=args.seed)
    language = StageConfig(args.language_steps, args.language_batch, **falling)
    words = StageConfig(args.word_steps, args.word_batch, other_lr=WORD_RATE, **falling)
    try:
        device = pick_device()
        train = Pictures(args.frames, args.shares).to(device)
        valid = Pictures(args.frames[:1], split="valid").to(device)
        print(f"{len(train):,} train pictures", flush=True)
        if args.start:
            model = begin(args.start).to(device)
        else:
            model = see(train, valid, args.work, vision, language, args.compile, args.workers)
        read(model, train, valid, args.work, words, args.vectors, args.encoded, bool(args.start), args.workers)
    except (CheckpointError, ModelError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    export(model, build_processor(), args.out)


if __name__ == "__main__":
    main()
