"""Questions about some bundled views, and answers to them, for the tests of the explorer."""

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.explore.filters import Given
from stkvlm_lib.qa.qa_sets import Record, make_records


def some_records(bundled: FrameSet) -> list[Record]:
    """All questions about twenty views each of valid and test."""
    names = {view.image_file for split in ("valid", "test") for view in bundled.views(split)[:20]}
    return [r for split in ("valid", "test") for r in make_records(bundled, split) if r.image_file in names]


def some_answers(records: list[Record]) -> list[Given]:
    """Of the test split: every third answer wrong, and unsure."""
    test = [record for record in records if record.split == "test"]
    return [
        Given(r.image_file, r.question, r.answer, True, 0.97)
        if number % 3
        else Given(r.image_file, r.question, "<i>", False, 0.4)
        for number, r in enumerate(test)
    ]
