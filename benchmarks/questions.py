"""How fast questions are made: a million of them on one core and on two, and the ratio to the straightforward way.

    python benchmarks/questions.py [--frames DIR] [--questions 1000000] [--out outputs/benchmarks/questions]

The straightforward way is that of the course's starter: its helpers take the path of an info file, so that each
question opens and parses the JSON again, once for the karts and once for the track; the answers are written as one
JSON list. It is timed on the ten forms, on the frames as they are. The same ten forms, then all sets (ten forms,
extended, multiple choice, contrast), are written to disk for as many frames as give the number of questions; where
there are fewer, they are repeated under other names. Each line runs in a process of its own, whose peak memory is
told, and that of its largest worker.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from joblib.externals.loky import get_reusable_executor

from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.data.frames import FLAT_SPLIT, INFO_SUFFIX, Frame
from stkvlm_lib.files import write_json
from stkvlm_lib.grammar.questions import COURSE_FAMILIES, ask_all
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.generate import FRAMES_A_CHUNK, Chunk, Plan, add_course, write_qa_sets

STRAIGHT, COURSE, ALL = "straightforward way, ten forms", "ten forms", "all sets"
LINES = ((STRAIGHT, 1), (COURSE, 1), (COURSE, 2), (ALL, 1), (ALL, 2), (STRAIGHT, 1))
"""(what, workers). The first is measured again at the end, which shows drift."""
STRAIGHT_QUESTIONS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=ROOT / "frames")
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "questions")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, workers = options.one
        print(json.dumps(measure(what, int(workers), options)))
        return
    rows = []
    for what, workers in LINES:
        again = ["--frames", options.frames, "--questions", str(options.questions), "--out", options.out]
        command = [sys.executable, __file__, *again, "--one", what, str(workers)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{what}, {workers}: {rows[-1]['per_second']:,} a second", file=sys.stderr, flush=True)
    straight = [row for row in rows if row["what"] == STRAIGHT]
    for row in rows:  # the ratio to the faster of the two measurements
        row["ratio"] = round(row["per_second"] / max(r["per_second"] for r in straight), 1)
        cpu = row["questions"] / row["cpu_seconds"]
        row["cpu_ratio"] = round(cpu / max(r["questions"] / r["cpu_seconds"] for r in straight), 1)
    write_json(options.out / "questions.json", rows)
    print(table(rows))


def measure(what: str, workers: int, options: argparse.Namespace) -> dict:
    """One line of the table."""
    frames = read_frames(options.frames).frames()
    load, begin, used = os.getloadavg()[0], time.perf_counter(), cpu_seconds()
    if what == STRAIGHT:
        names = "image_file", "question", "answer"
        items = [dict(zip(names, item, strict=True)) for item in straightforward(frames, STRAIGHT_QUESTIONS)]
        write_json(options.out / "straightforward.json", items)
        n, times = len(items), 1
    else:
        once = sum(len(list(ask_all(read_scene(view)))) for frame in frames for view in frame.moved().views)
        times = -(-options.questions // once)
        many = repeated(frames, times)
        options.out.mkdir(parents=True, exist_ok=True)
        begin, used = time.perf_counter(), cpu_seconds()
        with tempfile.TemporaryDirectory(dir=options.out) as folder:
            n = (write_course if what == COURSE else write_all)(many, Path(folder), Workers(workers))
    seconds = time.perf_counter() - begin
    get_reusable_executor().shutdown(wait=True)  # now what the workers used is counted
    return {
        "what": what,
        "workers": workers,
        "questions": n,
        "seconds": round(seconds, 1),
        "per_second": round(n / seconds),
        "cpu_seconds": round(cpu_seconds() - used, 1),
        "frames": len(frames),
        "repeated": times,
        "memory_mb": round(getrusage(RUSAGE_SELF).ru_maxrss / 1e3),
        "worker_memory_mb": round(getrusage(RUSAGE_CHILDREN).ru_maxrss / 1e3) if workers > 1 else 0,
        "load_before": round(load, 1),
    }


def cpu_seconds() -> float:
    """Of this process and its finished workers: unlike the time on the clock, not longer when others compute too."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def repeated(frames: Sequence[Frame], times: int) -> list[Frame]:
    """The frames so many times, each time under other names, so that wordings and what stays are drawn anew."""
    return [
        frame.moved(race=f"{n}/{frame.race}", prefix=f"{n:04d}/{frame.split}/", split=FLAT_SPLIT)
        for n in range(times)
        for frame in frames
    ]


def write_course(frames: Sequence[Frame], out: Path, workers: Workers) -> int:
    """The ten forms alone, both files; -> number of questions."""
    parts = [(frames[start : start + FRAMES_A_CHUNK],) for start in range(0, len(frames), FRAMES_A_CHUNK)]
    n = 0
    with (out / "qa_pairs.json").open("w") as items, (out / "all.jsonl").open("w") as lines:
        for chunk in workers.run(course_chunk, parts, "ten forms", len(parts)):
            items.writelines(chunk.course_items)
            lines.writelines(chunk.course_lines)
            n += len(chunk.course_lines)
    return n


def course_chunk(frames: Sequence[Frame]) -> Chunk:
    chunk = Chunk()
    for frame in frames:
        for view in frame.moved().views:
            add_course(chunk, view, FLAT_SPLIT)
    return chunk


def write_all(frames: Sequence[Frame], out: Path, workers: Workers) -> int:
    """Every file of a run; -> number of questions in them, without the multiple choice and the contrast pairs."""
    return write_qa_sets({FLAT_SPLIT: frames}, out, Plan(), workers)[FLAT_SPLIT].questions


# the straightforward way: as the course's starter declares its helpers, each of which opens the file


def kart_objects(info_path: Path, view: int) -> list[dict]:
    with open(info_path) as file:
        info = json.load(file)
    karts = []
    for class_id, kart, x1, y1, x2, y2 in info["detections"][view]:
        if class_id != 1:
            continue
        x1, y1, x2, y2 = int(x1 * 0.25), int(y1 * 0.25), int(x2 * 0.25), int(y2 * 0.25)
        if x2 - x1 < 5 or y2 - y1 < 5:
            continue
        karts.append({"name": info["karts"][kart], "x": (x1 + x2) / 2, "y": (y1 + y2) / 2})
    if karts:
        min(karts, key=lambda kart: (kart["x"] - 75) ** 2 + (kart["y"] - 50) ** 2)["is_center_kart"] = True
    return karts


def track_info(info_path: Path) -> str:
    with open(info_path) as file:
        return json.load(file)["track"]


def answer_again(info_path: Path, view: int, family: str, name: str) -> str | None:
    """One question, from the file alone; None where it is not asked."""
    karts, track = kart_objects(info_path, view), track_info(info_path)
    if family == "track":
        return track
    ego = next((kart for kart in karts if kart.get("is_center_kart")), None)
    if ego is None:
        return None
    if family in ("ego", "count"):
        return ego["name"] if family == "ego" else str(len(karts))
    others = [kart for kart in karts if kart is not ego]
    sides = ["left" if kart["x"] <= ego["x"] else "right" for kart in others]
    depths = ["front" if kart["y"] < ego["y"] else "back" for kart in others]
    if family.startswith("count_"):
        n = (sides + depths).count("back" if family == "count_behind" else family.removeprefix("count_"))
        return str(n) if n else None
    asked = [kart["name"] for kart in others].index(name)
    return {
        "left_right": sides[asked],
        "front_back": depths[asked],
        "where": f"{depths[asked]} and {sides[asked]}",
    }[family]


def straightforward(frames: Sequence[Frame], most: int) -> Iterator[tuple[str, str, str]]:
    """(image file, question, answer) of the ten forms, from frames spread over all until there are `most`."""
    n = 0
    for frame in frames[:: max(1, len(frames) * 30 // most)]:
        path = frame.folder / f"{frame.frame_id}{INFO_SUFFIX}"
        for view in range(frame.view_count):
            others = [kart["name"] for kart in kart_objects(path, view) if not kart.get("is_center_kart")]
            for family in COURSE_FAMILIES.values():
                for name in others if family.slots else [""]:
                    answer = answer_again(path, view, family.name, name)
                    if answer is not None:
                        yield frame.image_file(view), family.template.format(kart=name), answer
                        n += 1
            if n >= most:
                return


def table(rows: Sequence[dict]) -> str:
    lines = ["| | processes | questions | s | a second | ratio | CPU s | ratio by CPU s | memory, MB | load before |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        memory = f"{row['memory_mb']:,}"
        if row["worker_memory_mb"]:
            memory += f", a worker {row['worker_memory_mb']:,}"
        lines.append(
            f"| {row['what']} | {row['workers']} | {row['questions']:,} | {row['seconds']:,.1f} "
            f"| {row['per_second']:,} | {row['ratio']:,.1f} | {row['cpu_seconds']:,.1f} | {row['cpu_ratio']:,.1f} "
            f"| {memory} | {row['load_before']} |"
        )
    first = next(row for row in rows if row["repeated"] > 1 or row["what"] != STRAIGHT)
    lines.append(f"\n{first['frames']:,} frames, repeated {first['repeated']} times but for the straightforward way.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
