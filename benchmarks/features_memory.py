"""Memory that training takes for image tokens and questions, by the number of pictures.

    python benchmarks/features_memory.py [--pictures 20000 200000] [--packed 1000] [--reckon 10000000] [--keep DIR]

Each number is measured in a process of its own, with the classes of notebook 03: the drawn questions are written, image
tokens of all pictures encoded and kept, then read in the order of an epoch, and some of the steps packed. Encoding is
stood in for by narrow random tokens (32 x 64 values of 16 bit, 4 KB a picture) and pictures by their numbers, which
changes what lies on disk, not what stays in memory. The set of frames itself, which reads info files, is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from stkvlm_lib import markdown
from stkvlm_lib.config import ROOT
from stkvlm_lib.number_text import count
from stkvlm_lib.qa.drawn import DRAWN, PicturesOf, TrainingPicture, write_drawn
from stkvlm_lib.runs import peak_memory_mb
from stkvlm_lib.vlm.base_vlm import Prompt, find_base, load_processor
from stkvlm_lib.vlm.features import FeatureStore
from stkvlm_lib.vlm.training_batches import PackedPictures, Shares

TOKENS, WIDTH = 32, 64
BATCH = 16
SMOLVLM_BYTES = 64 * 576 * 2
KEPT_BYTES = 128
"""Of each picture: its key and place in the index and in the order of training (48), the places of its questions and in
the order of an epoch (16), and as much again for a moment, while keys are sorted."""
QUESTIONS = ("What kart is the ego car?", "How many karts are there in the scenario?", "What track is this?") * 5
ANSWERS = ("sara_the_wizard", "6", "black_forest") * 5
FAMILIES = ("ego", "total_count", "track") * 5


class NumberedPictures(dict):
    """A view for any name, made when it is asked for; its file holds its name."""

    def __missing__(self, name: str) -> SimpleNamespace:
        path = SimpleNamespace(read_bytes=name.encode)
        return SimpleNamespace(image_path=path, image=lambda mirrored: Image.new("RGB", (1, 1)))


class NarrowModel:
    """Gives random tokens to any pictures."""

    def __init__(self):
        self.base = find_base()
        self.processor = load_processor(self.base)
        self.device, self.adapter_sees = torch.device("cpu"), False

    def encode(self, images: list) -> torch.Tensor:
        return torch.randn(len(images), TOKENS, WIDTH).half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--packed", type=int, default=1000, help="pictures of which the questions are packed too")
    parser.add_argument("--reckon", type=int, default=10_000_000, help="pictures for which memory is reckoned")
    parser.add_argument("--keep", type=Path, help="folder for the files; default: one that is removed at the end")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.packed, options.keep)))
        return
    rows = [in_own_process(n, options.packed, options.keep) for n in options.pictures]
    print(markdown.table([{name: count(value) for name, value in row.items()} for row in rows], right=True))
    print(reckoning(rows, options.reckon))


def in_own_process(n: int, packed: int, keep: Path | None) -> dict[str, float]:
    """What `measure` gives, where nothing was in memory before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(n), "--packed", str(packed)]
        command += ["--keep", str((keep or Path(folder)) / str(n))]
        done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(n: int, packed: int, folder: Path) -> dict[str, float]:
    """Peak memory in MB of 10^6 bytes, before and after."""
    model, frames = NarrowModel(), SimpleNamespace(by_image_file=NumberedPictures())
    before, begin = peak_memory_mb(), time.monotonic()
    asked = (TrainingPicture(f"{i}", False, QUESTIONS, ANSWERS, FAMILIES) for i in range(n))
    drawn = write_drawn(asked, folder / DRAWN)
    store = FeatureStore(model, frames, 64, folder / "features")
    tokens = store.in_order(PicturesOf(drawn), "encode")
    read = 0
    for batch in Shares(n, BATCH, seed=0):
        read += sum(tokens[i].numel() for i in batch)
    assert read == n * TOKENS * WIDTH
    pictures = PackedPictures(Prompt(model.processor), drawn, frames, tokens)
    for i in range(0, n, max(1, n // packed)):
        pictures[i]
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "pictures": n,
        "peak memory, MB": round(peak_memory_mb()),
        "of it before, MB": round(before),
        "on disk, MB": round(on_disk / 1e6),
        "seconds": round(time.monotonic() - begin),
    }


def reckoning(rows: list[dict[str, float]], n: int) -> str:
    """What the slope between the smallest and the largest means for n pictures of SmolVLM-256M; no less than what is
    known to be kept."""
    first, last = rows[0], rows[-1]
    more = last["peak memory, MB"] - first["peak memory, MB"]
    slope = max(KEPT_BYTES, more * 1e6 / max(1, last["pictures"] - first["pictures"]))
    memory = (last["peak memory, MB"] * 1e6 + slope * (n - last["pictures"])) / 1e9
    return (
        f"measured {more:+.0f} MB; reckoned with {slope:.0f} bytes a picture, {n:,} pictures of SmolVLM-256M take "
        f"{memory:.1f} GB of memory, and {n * SMOLVLM_BYTES / 1e9:,.0f} GB on disk"
    )


if __name__ == "__main__":
    main()
