"""Charts show and save themselves, and names from data are drawn as they stand."""

import io

import pytest
from figure_texts import texts
from matplotlib import pyplot
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from stkvlm_lib.figures.style import Chart, family_rows, message, plain, save
from stkvlm_lib.figures.tiles import caption


def bars(name: str) -> Chart:
    chart = Chart(figsize=(9.6, 3), layout="constrained")
    axes = chart.subplots()
    axes.barh([name, "abyss"], [3, 1])
    plain(axes, name, name)
    return chart


def test_charts_show_and_save_themselves_without_pyplot(tmp_path):
    chart, path = bars("mines"), tmp_path / "figures" / "bars.png"
    save(chart, path)
    for source in (path, io.BytesIO(chart._repr_png_())):
        with Image.open(source) as image:
            assert image.format == "PNG" and image.width > 800
    assert pyplot.get_fignums() == [] and [p.name for p in path.parent.iterdir()] == ["bars.png"]


@pytest.mark.parametrize("name", ["$x^{$", "$", r"$\undefined$", "a_b^c", "<svg/onload=x>", "車"])
def test_names_from_data_are_drawn_as_they_stand(tmp_path, name):
    """Also where drawing itself makes the text, as ticks; none is taken for a formula."""
    chart = bars(name)
    axes = chart.axes[0]
    axes.set(xticks=[0.5], xticklabels=[name])
    caption(axes, name)
    chart.legend(handles=[Line2D([], [], label=name)])
    save(chart, tmp_path / "a.png")
    assert not any(text.get_parse_math() for text in chart.findobj(Text))


def test_rows_of_families_carry_their_n_and_the_first_stands_apart():
    chart, axes = family_rows([("all", 1234), ("ego", 5)])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all questions  (n = 1,234)", "ego  (n = 5)"]
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["bold", "normal"]
    low, high = axes.get_ylim()
    assert low > high, "the first row is the topmost"


def test_a_message_says_why_there_is_nothing_to_show():
    assert texts(message("Nothing.\nNo run.")) == "Nothing.\nNo run."
    assert message("a\nb\nc").get_figheight() > message("a").get_figheight()
