"""Figures of a set of frames say what they count and of how many."""

from frame_files import write_frame
from matplotlib.figure import Figure
from matplotlib.text import Text

from stkvlm_lib.data.frame_sets import read_frames
from stkvlm_lib.exploration import frame_plots


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_image_statistics_name_splits_and_limit(bundled):
    said = texts(frame_plots.image_statistics(bundled, most=20))
    for split in bundled.splits:
        assert f"{split}, n = {len(bundled.views(split))}" in said
    assert "under 5 px" in said


def markers(figure: Figure) -> dict[tuple[float, float], bool]:
    """(kart column, track row) -> whether it is marked as never in train."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() == frame_plots.VERMILLION
        for line in lines
    }


def test_line_ups_count_train_races_and_mark_held_out_pairs(tmp_path):
    write_frame(tmp_path / "train", "00000", race_seed=1, karts=["gnu", "tux"])
    write_frame(tmp_path / "train", "00001", race_seed=2, karts=["gnu"])
    write_frame(tmp_path / "train", "00002", race_seed=2, karts=["gnu"])
    write_frame(tmp_path / "test", "00003", race_seed=3, karts=["tux"])
    write_frame(tmp_path / "test", "00004", race_seed=4, karts=["gnu"], track="mines")
    figure = frame_plots.line_ups(read_frames(tmp_path))
    assert figure.axes[0].images[0].get_array().tolist() == [[2, 1], [0, 0]]
    assert markers(figure) == {(1, 0): False, (0, 1): True}
    said = texts(figure)
    assert "abyss  (n = 2)" in said and "mines  (n = 0)" in said and "held out, never in train" in said


def test_line_ups_without_a_train_split_count_all_races(tmp_path):
    write_frame(tmp_path, "00000", race_seed=1)
    write_frame(tmp_path, "00001", race_seed=2)
    figure = frame_plots.line_ups(read_frames(tmp_path))
    assert figure.axes[0].images[0].get_array().tolist() == [[2, 2, 2]]
    assert markers(figure) == {} and "all splits" in texts(figure)


def test_visibility_shows_what_is_measured_and_says_when_nothing_is(tmp_path, bundled):
    said = texts(frame_plots.visibility(bundled))
    karts = sum(d.class_id == 1 for view in bundled.views("test") for d in view.detections)
    assert said.count(f"test, n = {karts}") == 3 and "metres" in said
    write_frame(tmp_path, "00000")
    assert "do not say" in texts(frame_plots.visibility(read_frames(tmp_path)))
