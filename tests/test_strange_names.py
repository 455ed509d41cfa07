"""Frames of add-on tracks and karts go the whole way from the folder to questions, figures and cards."""

import pytest
from frame_files import write_frame

from stkvlm_lib.cards.dataset_folder import export_dataset, read_dataset
from stkvlm_lib.cards.frames_card import make_card
from stkvlm_lib.data.frame_sets import FrameSet, read_frames
from stkvlm_lib.exploration import frame_pictures, frame_plots, qa_plots
from stkvlm_lib.figures import display
from stkvlm_lib.figures.style import save
from stkvlm_lib.grammar.kart_colours import measure_colours
from stkvlm_lib.grammar.names import KARTS
from stkvlm_lib.grammar.questions import OTHER, answer, family_of
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.contrast import read_contrast
from stkvlm_lib.qa.generate import Plan, frames_by_split, write_qa_sets
from stkvlm_lib.qa.label_faults import label_faults
from stkvlm_lib.qa.leaks import check_leaks
from stkvlm_lib.qa.qa_sets import CONTRAST, COURSE, EXTENDED, read_records

LINE_UPS = {
    "add-ons": ["add-on kart 2.0", "$x^{$", "Kart_\u8eca", "tux"],
    "HTML": ["<svg/onload=window.XSS=1>gnu", "it's", '"quoted"', "a|b"],
    "28 karts": [*KARTS, *(f"kart{n}" for n in range(10))],
    "every kart": KARTS,
}
TRACKS = ("$\\frac{abyss", "<img src=x onerror='window.XSS=1'>", "my track (2)", "abyss")


@pytest.fixture(params=LINE_UPS, scope="module")
def folder(request, tmp_path_factory) -> FrameSet:
    """A race of each track in train, valid and test, two views each."""
    root, names = tmp_path_factory.mktemp("data"), LINE_UPS[request.param]
    for number, track in enumerate(TRACKS):
        others = ((kart, 20 * kart, 60 + 9 * kart) for kart in range(1, len(names)))
        boxes = [[1, 0, 260, 160, 340, 240], *([1, kart, x, y + number, x + 30, y + 50] for kart, x, y in others)]
        split = ("train", "valid", "test", "train")[number]
        changes = {"track": track, "karts": names, "race_seed": number, "detections": [boxes, boxes[:3]]}
        write_frame(root / split, f"0000{number}", **changes)
    return read_frames(root, check_images=True)


def test_every_step_of_the_notebooks_takes_them(folder, tmp_path):
    for rows in folder.statistics().values():
        assert "<img" not in display.table(rows).to_html()
    views = folder.views()
    tallies = write_qa_sets(frames_by_split(folder, 0), tmp_path / "qa", Plan(contrast_pictures=5), Workers(quiet=True))
    assert all(tally.questions for tally in tallies.values())
    records = [
        record
        for split in folder.splits
        for form in (COURSE, EXTENDED)
        for record in read_records(tmp_path / "qa" / form.format(split))
    ]
    figures = [
        frame_plots.line_ups(folder),
        frame_plots.image_statistics(folder),
        frame_pictures.contact_sheet(views),
        frame_pictures.overlays(views[:3]),
        frame_pictures.colour_sheet(measure_colours(folder)),
        qa_plots.qa_samples(records, folder, 6, 0),
        qa_plots.composition(tallies["train"].course),
        qa_plots.contrast_gallery(read_contrast(tmp_path / "qa" / CONTRAST.format("train")), folder),
        qa_plots.closest_pairs(check_leaks({"train": folder.frames("train")}, Workers(quiet=True))),
    ]
    for number, figure in enumerate(figures):
        save(figure, tmp_path / f"{number}.png")
    card = make_card(folder)
    assert "<img" not in card and "<svg" not in card
    export_dataset(tmp_path / "qa", folder, tmp_path / "dataset", "card")
    assert read_dataset(tmp_path / "dataset")["train"] == [vars(r) for r in records if r.split == "train"]
    assert "<img" not in (tmp_path / "dataset" / "FRAMES.md").read_text()
    assert label_faults(records, folder) == []


def test_every_question_reads_back_with_its_answer(folder, tmp_path):
    write_qa_sets(frames_by_split(folder, 0), tmp_path, Plan(contrast_pictures=0), Workers(quiet=True))
    for split in folder.splits:
        for record in read_records(tmp_path / COURSE.format(split)):
            assert record.family == family_of(record.question) != OTHER
            view = folder.by_image_file[record.image_file]
            assert answer(record.question, read_scene(view)) == record.answer
