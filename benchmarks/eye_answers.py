"""What a reader who sees only the pictures scores on the test questions: how much the eye can tell, beside a run.

    python benchmarks/eye_answers.py [--run outputs/latest] [--answers FILE] [--out outputs/benchmarks/eye_answers]
    python benchmarks/eye_answers.py --sheets DIR

50 test pictures, each race in turn, and of their questions 200, families in the proportions of the whole set, follow
from the seed. --sheets writes what a reader needs: the rule in words, karts and tracks with their names from train
pictures, and each test picture enlarged six times, without boxes, above its questions. Those that name a kart come in
a second round, since they give away who is in view. Answers go into `given` of `answers.jsonl` there.

frames/eye_answers.jsonl holds those of one reader, who had answered all of the sheets before any answer was scored. A
reader sees a picture's questions of a round together, and may use that none is asked whose count is zero; a model is
asked each alone.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from stkvlm_lib import markdown
from stkvlm_lib.analysis.accuracy import score
from stkvlm_lib.analysis.comparison import Comparison, compare, share
from stkvlm_lib.analysis.intervals import Bootstrap
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.data.frames import BOX_FRAME, KART_CLASS, Detection, View
from stkvlm_lib.evaluation.asking import as_prediction
from stkvlm_lib.evaluation.predictions import HEADLINE, Prediction, read_answers
from stkvlm_lib.figures.drawing import font_of
from stkvlm_lib.files import write_json, write_jsonl, write_text
from stkvlm_lib.grammar.families import pick
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.grouping import by_turns
from stkvlm_lib.qa.qa_sets import Record, by_picture, make_records
from stkvlm_lib.runs import compared_run
from stkvlm_lib.typed import read_rows
from stkvlm_lib.vlm.answering import Answer

SEED, PICTURES, QUESTIONS = 1, 50, 200
RESAMPLES = 1000
ENLARGED = 6
"""Times the size of the picture, without boxes or names."""
PLAIN = 40, 0.9
"""A kart on the reference sheets has at least this width and height (px in the 600x400 frame) and visible share."""
RULE = """\
The ego kart is the kart nearest the middle of the picture. Left and right, front and back compare the centres of the
karts with the centre of the ego kart: higher in the picture is front. Of a picture of 150x100 px, karts narrower or
lower than 5 px do not count. The total counts the ego kart; the karts left, right, in front or behind do not include
it, and a count of zero is never asked.
"""


@dataclass(frozen=True)
class Given:
    """What a reader answered."""

    image_file: str
    question: str
    given: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=Path, help="write the sheets for a new reader there, and score nothing")
    parser.add_argument("--answers", type=Path, default=ROOT / "frames" / "eye_answers.jsonl")
    parser.add_argument("--run", help="a scored run, to compare with on the same questions")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks" / "eye_answers")
    options = parser.parse_args()
    frames = read_frames(ROOT / "frames")
    drawn = draw(make_records(frames, "test"))
    if options.sheets:
        write_sheets(frames, drawn, options.sheets)
        return
    answers = answered(drawn, options.answers)
    found = score(answers, Bootstrap(answers, RESAMPLES, SEED))
    figures = found.as_json()
    shown = [{name: text for name, text in row.items() if name != "prefix"} for row in found.table().rows]
    print(markdown.table(shown, right=True))
    if options.run:
        run = compared_run(options.run)
        compared = against(answers, run)
        figures |= compared.into_metrics()
        who = "the reader", run.resolve().name
        print(f"\n{markdown.table(compared.table(*who).rows, right=True)}\n\n{compared.words(*who)}")
    write_json(options.out / "eye_answers.json", figures)


def against(answers: Sequence[Prediction], run: Path) -> Comparison:
    """The reader beside a run, on the same questions."""
    shared = share(answers, read_answers(run / HEADLINE))
    pairs = [pair.ours for pair in shared.pairs]
    return compare(shared, Bootstrap(pairs, RESAMPLES, SEED), run.resolve().name)


def draw(records: Sequence[Record], pictures: int = PICTURES, questions: int = QUESTIONS) -> list[Record]:
    """Questions of pictures drawn by the seed, a picture's together, pictures shuffled so that order says nothing.

    Each question of a family has the same chance where races have equally many pictures.
    """
    kept = set(in_turn({r.image_file: r.race for r in records}, pictures))
    piles: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: chance(r.image_file, r.question)):
        if record.image_file in kept:
            piles[record.family].append(record)
    shares = in_proportion(Counter(r.family for r in records), questions)
    drawn = {record for family, n in shares.items() for record in piles[family][:n]}
    return [record for record in sorted(records, key=lambda r: chance(r.image_file)) if record in drawn]


def in_turn(races: dict[str, str], n: int) -> list[str]:
    """n of the pictures, given with their races: one of each race, then a second of each, and so on."""
    return by_turns(sorted(races, key=chance), races.__getitem__)[:n]


def in_proportion(sizes: Counter[str], n: int) -> dict[str, int]:
    """n shared out by size; what is left of rounding down goes to the largest remainders."""
    exact = {name: n * size / sizes.total() for name, size in sizes.items()}
    shares = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[: n - sum(shares.values())]:
        shares[name] += 1
    return shares


def chance(*key: str) -> int:
    """The place of a picture or question in the draw."""
    return pick(1 << 64, "eye answers", SEED, *key)


def answered(drawn: Iterable[Record], path: Path) -> list[Prediction]:
    """The reader's answers to the drawn questions, scored. Raises ValueError naming the first that is missing."""
    given = {(row.image_file, row.question): row.given for row in read_rows(path, Given, "see --sheets")}
    for r in drawn:
        if not given.get((r.image_file, r.question)):
            raise ValueError(f"{path}: no answer to {r.question!r} about {r.image_file}; add one, see --sheets")
    certain = 1.0  # a reader gives no confidence
    return [as_prediction(r, Answer(given[r.image_file, r.question], certain)) for r in drawn]


def write_sheets(frames: FrameSet, drawn: Sequence[Record], folder: Path) -> None:
    """All that a reader is shown, and the file for the answers, which has the questions in the order of the sheets."""
    forms = [f"{f.name}: {' | '.join(f.answers)}" for f in FAMILIES.values() if f.name in {r.family for r in drawn}]
    write_text(folder / "rule.txt", RULE + "\nAnswers:\n" + "\n".join(forms) + "\n")
    rows = []
    for name, tiles in (("karts", kart_tiles(frames)), ("tracks", track_tiles(frames))):
        for start in range(0, len(tiles), 8):
            reference_sheet(dict(list(tiles.items())[start : start + 8])).save(folder / f"{name}{start // 8 + 1}.png")
    places = {image_file: place for place, image_file in enumerate(by_picture(drawn), start=1)}
    for number, about_kart in enumerate((False, True), start=1):
        for image_file, records in by_picture(r for r in drawn if bool(FAMILIES[r.family].slots) == about_kart).items():
            questions = [r.question for r in records]
            sheet = question_sheet(frames.by_image_file[image_file].image(), f"Picture {places[image_file]}", questions)
            sheet.save(folder / f"round{number}_{places[image_file]:02}.png")
            rows += [Given(image_file, question) for question in questions]
    write_jsonl(folder / "answers.jsonl", map(asdict, rows))


def kart_tiles(frames: FrameSet, n: int = 3) -> dict[str, list[Image.Image]]:
    """{kart: n crops of it from train pictures of different tracks}"""
    side, visible = PLAIN
    found: dict[str, dict[str, tuple[View, Detection]]] = defaultdict(dict)
    for view in sorted(frames.views("train"), key=lambda view: chance(view.image_file)):
        for d in view.detections:
            x1, y1, x2, y2 = d.box
            if d.class_id == KART_CLASS and min(x2 - x1, y2 - y1) >= side and (d.visible or 0) >= visible:
                found[view.frame.karts[d.object_id]].setdefault(view.frame.track, (view, d))
    return {kart: [crop(*place) for place in list(places.values())[:n]] for kart, places in sorted(found.items())}


def crop(view: View, detection: Detection, margin: int = 12) -> Image.Image:
    """A kart with a margin (px in the 600x400 frame) around it."""
    picture, (x1, y1, x2, y2) = view.image(), detection.box
    sx, sy = picture.width / BOX_FRAME[0], picture.height / BOX_FRAME[1]
    return picture.crop(
        (round((x1 - margin) * sx), round((y1 - margin) * sy), round((x2 + margin) * sx), round((y2 + margin) * sy))
    )


def track_tiles(frames: FrameSet, n: int = 2) -> dict[str, list[Image.Image]]:
    """{track: n train pictures of different races on it}"""
    found: dict[str, dict[str, View]] = defaultdict(dict)
    for view in sorted(frames.views("train"), key=lambda view: chance(view.image_file)):
        found[view.frame.track].setdefault(view.frame.race, view)
    return {track: [view.image() for view in list(views.values())[:n]] for track, views in sorted(found.items())}


def reference_sheet(tiles: dict[str, list[Image.Image]], columns: int = 2, size: tuple = (190, 140)) -> Image.Image:
    """Names above their pictures, each fitted into `size` px."""
    (w, h), title = size, 26
    wide = w * max(map(len, tiles.values())) + 10
    sheet = Image.new("RGB", (wide * columns, (h + title) * -(-len(tiles) // columns)), "white")
    for i, (name, pictures) in enumerate(tiles.items()):
        x, y = i % columns * wide, i // columns * (h + title)
        ImageDraw.Draw(sheet).text((x + 4, y + 2), name, "black", font_of(18))
        for j, picture in enumerate(pictures):
            scale = min((w - 6) / picture.width, (h - 6) / picture.height)
            sheet.paste(enlarged(picture, scale), (x + j * w, y + title))
    return sheet


def question_sheet(picture: Image.Image, title: str, questions: Sequence[str], line: int = 30) -> Image.Image:
    """The enlarged picture, its title and the questions below."""
    large = enlarged(picture, ENLARGED)
    sheet = Image.new("RGB", (large.width, large.height + line * (len(questions) + 1) + 8), "white")
    sheet.paste(large)
    for i, text in enumerate((title, *questions)):
        ImageDraw.Draw(sheet).text((6, large.height + 4 + i * line), text, "black", font_of(20))
    return sheet


def enlarged(picture: Image.Image, times: float) -> Image.Image:
    size = round(picture.width * times), round(picture.height * times)
    return picture.resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
