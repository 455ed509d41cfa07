"""A run of a batch without notebooks and models, as a process: `tiny_run.py OUTPUTS PARENT RUN_ID PARAMETERS TO_STEP`.

It leaves what a run leaves, as far as batches look at it. Files in OUTPUTS steer it: `wait` lets it stop in step 03
until it is ended, `fail-NAME` lets the run of that name fail.
"""

import json
import sys
import time
from pathlib import Path

from stkvlm_lib import run_lock, runs
from stkvlm_lib.batch.child import end_with_batch
from stkvlm_lib.config import STEPS
from stkvlm_lib.files import write_json, write_jsonl
from stkvlm_lib.pipeline import step_configs
from stkvlm_lib.runs import hash_of, is_done, recorded_parameters, stamp_path

RACES = [f"race{number:02}" for number in range(12)]


def command(run, to_step):
    """What run_batch starts in place of the real run."""
    import os

    words = [run.outputs, os.getpid(), run.run_id, json.dumps(run.parameters), to_step or ""]
    return [sys.executable, __file__, *map(str, words)]


def right(race: int, rank: int, seed: int) -> bool:
    """The wider the adapter the more races are answered right; the seed changes which."""
    return (race * 7 + seed) % 12 < min(11, 4 + rank // 2)


def leave(folder: Path, step: str, parameters: dict) -> None:
    """The artefacts of one step."""
    rank, seed = int(parameters.get("LORA_RANK", 16)), int(parameters["SEED"])
    if step == "02":
        write_json(folder / "qa" / "train.jsonl", {"seed": seed})
        (folder / "notebooks").mkdir(exist_ok=True)
        (folder / "notebooks" / "02_generate_qa.ipynb").write_text("{}")
    if step == "03":
        log = [{"step": s, "loss": 2 / (s + rank / 8)} for s in range(1, 21)]
        write_jsonl(folder / "train_log.jsonl", [*log, {"step": 20, "valid_exact": 0.5 + rank / 100 + seed / 1000}])
        facts = {"valid_exact": 0.5 + rank / 100 + seed / 1000, "train_seconds": 60.0 + rank, "adapter_mb": rank / 10}
        write_json(folder / "training.json", facts)
    if step == "04":
        rows = [
            {
                "image_file": f"test/{race}_00_im.jpg", "question": f"question {n}?", "answer": "1", "prediction": "1",
                "family": "count", "correct": right(number + n, rank, seed), "prefix_correct": True,
                "confidence": 0.5, "race": race, "track": "abyss",
            }
            for number, race in enumerate(RACES)
            for n in range(3)
        ]  # fmt: skip
        write_jsonl(folder / "predictions.jsonl", rows)
        exact = sum(row["correct"] for row in rows) / len(rows)
        figures = {"n": len(rows), "split": "test", "exact": exact, "n_clusters": len(RACES), "clusters": "race"}
        figures |= {"train_seconds": 60.0 + rank, "peak_memory_mb": 900.0 + rank, "adapter_mb": rank / 10}
        write_json(folder / "metrics.json", figures | {"families": {"count": {"n": len(rows), "exact": exact}}})


def do_step(folder: Path, step: str, parameters: dict, recorded: dict) -> None:
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    write_json(folder / "config.json", config | {step: recorded})
    leave(folder, step, parameters)
    manifest = (
        json.loads((folder / "manifest.json").read_text()) if (folder / "manifest.json").exists() else {"steps": {}}
    )
    made = {"qa/train.jsonl": hash_of(folder / "qa" / "train.jsonl")} if step == "02" else {}
    manifest["steps"][step] = {"finished": "now", "wall_seconds": 1.5, "artefacts": made}
    write_json(folder / "manifest.json", manifest | {"run_id": folder.name})
    write_json(stamp_path(folder, step), {"step": step, "finished": "now"})
    with (folder.parent / "steps.log").open("a") as log:
        log.write(f"{folder.name} {step}\n")


def main() -> int:
    outputs, parent, run_id, parameters, to_step = sys.argv[1:]
    outputs, parameters = Path(outputs), json.loads(parameters)
    folder = outputs / run_id
    end_with_batch(folder.parent, int(parent), every=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    run_lock.hold_run(folder)
    for step, config in step_configs("smoke", parameters).items():
        if is_done(folder, step) or (to_step and step > to_step):
            continue
        print(f"== {STEPS[step][0]}", flush=True)
        if step == "03" and (outputs / "wait").exists():
            (outputs / f"waiting-{folder.name}").touch()
            time.sleep(120)
        if step == "03" and (outputs / f"fail-{folder.name}").exists():
            print("\nerror: 03_finetune_qlora failed: RuntimeError: out of paper\n  see x\n  resume y", flush=True)
            return 1
        do_step(folder, step, parameters, recorded_parameters(config))
    return 0


if __name__ == "__main__":
    runs.OUTPUTS = Path(sys.argv[1])
    sys.exit(main())
