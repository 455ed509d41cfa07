import pytest

from stkvlm_lib.figures import display


def test_a_table_shows_its_rows_and_says_when_there_are_none():
    shown = display.table([{"split": "train", "views": 2290}]).to_html()
    assert "train" in shown and "2,290" in shown
    assert "nothing to show" in display.table([]).to_html()


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


@pytest.mark.parametrize("headless", ["1", ""])
def test_progress_yields_every_item(monkeypatch, headless):
    monkeypatch.setenv("STKVLM_HEADLESS", headless)
    assert list(display.progress(range(5), "label")) == [0, 1, 2, 3, 4]


def test_headless_progress_is_a_few_plain_lines(monkeypatch, capsys):
    monkeypatch.setenv("STKVLM_HEADLESS", "1")
    list(display.progress(range(50), "encode"))
    list(display.progress(range(3), "answer", every=0))
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "encode: 50 of 50 batches, about 0 s left",
        "answer: 1 of 3 batches, about 0 s left",
        "answer: 2 of 3 batches, about 0 s left",
        "answer: 3 of 3 batches, about 0 s left",
    ]
    assert captured.err == ""
