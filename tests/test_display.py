"""What notebooks show: tables without HTML of the data, sections in their order, a figure that redraws itself."""

import pytest
from IPython.display import HTML, Image, Markdown

from stkvlm_lib.analysis.sections import Section, Shown, Table
from stkvlm_lib.figures import display
from stkvlm_lib.figures.style import message, png


def test_a_table_shows_its_rows_and_says_when_there_are_none():
    shown = display.table([{"split": "train", "views": 2290}]).to_html()
    assert "train" in shown and "2,290" in shown
    assert "nothing to show" in display.table([]).to_html()


def test_running_text_keeps_its_width_and_figures_stay_in_one_line_on_a_narrow_page():
    rows = [{"family": "ego", "question": "What kart is the ego car here?", "95% interval": "92.1% to 95.6%"}]
    shown = display.table(rows).to_html()
    assert "white-space: nowrap" in shown and shown.count("min-width: 12em") == 1


EVIL = "<svg/onload=window.XSS=1>abyss"


def test_texts_from_data_are_no_html_in_a_table():
    shown = display.table([{EVIL: 1, "track": EVIL, "n": 1234.5}]).to_html()
    assert "<svg" not in shown and shown.count("&lt;svg/onload=window.XSS=1&gt;abyss") == 2 and "1,234.500" in shown


@pytest.mark.browser
def test_a_name_from_data_runs_no_script_in_a_browser(page):
    page.set_content(display.table([{"track": EVIL, "kart": "<img src=x onerror='window.XSS=1'>"}]).to_html())
    page.wait_for_timeout(200)
    assert page.evaluate("window.XSS") is None and EVIL in page.inner_text("table")


def test_the_live_figure_is_redrawn_in_place(monkeypatch):
    class Handle:
        shown = []

        def update(self, figure):
            self.shown.append(figure)

    monkeypatch.setattr(display, "display", lambda display_id: Handle())
    show = display.live(lambda rows: f"curve of {len(rows)}")
    show([1])
    show([1, 2])
    assert Handle.shown == ["curve of 1", "curve of 2"]


@pytest.fixture
def shown(monkeypatch):
    """What a cell would show."""
    found = []
    monkeypatch.setattr(display, "display", found.append)
    return found


def test_a_section_shows_words_figures_tables_and_what_opens_on_a_click(shown):
    chart = message("chart")
    figures = [Shown("a", chart, "As *drawn*."), Shown("b", png(chart), "As left by an earlier report.")]
    rows = [{"family": EVIL, "n": "3"}]
    details = [Table(rows, "<b>More</b>")]
    display.section(Section("Title", f"Words of {EVIL}.", figures, Table(rows), details, "A note."), "none")
    words, drawn, caption, left, _, table, note, more = shown
    assert isinstance(words, Markdown) and "<svg" not in words.data and drawn is chart
    assert isinstance(left, Image) and left.data == figures[1].figure
    assert caption.data.count("*") == 4 and r"\*drawn\*" in caption.data, "a star of the data makes nothing slanted"
    assert "&lt;svg" in table.to_html() and note.data == "*A note.*"
    assert isinstance(more, HTML) and "<summary>&lt;b&gt;More&lt;/b&gt;</summary>" in more.data
    assert "<svg" not in more.data and "Title" not in str(words.data), "the heading stands in the notebook"


def test_what_a_run_does_not_have_is_a_line(shown, capsys):
    display.section(None, "Name another run.")
    assert shown == [] and capsys.readouterr().out == "Name another run.\n"
    display.section(Section("Title"), "none")
    assert shown == [], "nor is there anything but the heading"
