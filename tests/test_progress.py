"""Progress: every item comes through, and a headless run says in a few plain lines how far it is."""

import pytest

from stkvlm_lib.progress import progress


@pytest.mark.parametrize("headless", ["1", ""])
def test_progress_yields_every_item(monkeypatch, headless):
    monkeypatch.setenv("STKVLM_HEADLESS", headless)
    assert list(progress(range(5), "label")) == [0, 1, 2, 3, 4]
    assert list(progress([], "label")) == []


def test_headless_progress_is_a_few_plain_lines(monkeypatch, capsys):
    monkeypatch.setenv("STKVLM_HEADLESS", "1")
    list(progress(range(50), "encode"))
    list(progress(range(3), "answer", every=0))
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "encode: 50 of 50 batches, about 0 s left",
        "answer: 1 of 3 batches, about 0 s left",
        "answer: 2 of 3 batches, about 0 s left",
        "answer: 3 of 3 batches, about 0 s left",
    ]
    assert captured.err == ""


def test_items_that_cannot_be_counted_are_told_how_many_they_are(monkeypatch, capsys):
    monkeypatch.setenv("STKVLM_HEADLESS", "1")
    assert list(progress(iter("abc"), "draw", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == "draw: 3 of 3 batches, about 0 s left\n"


def test_in_a_notebook_there_is_a_bar_with_its_label(monkeypatch, capsys):
    monkeypatch.delenv("STKVLM_HEADLESS", raising=False)
    list(progress(range(4), "encode"))
    captured = capsys.readouterr()
    assert captured.out == "" and "encode" in captured.err and "4/4" in captured.err


def test_work_is_done_as_it_is_asked_for_and_not_ahead(monkeypatch):
    monkeypatch.setenv("STKVLM_HEADLESS", "1")
    made = []
    items = progress((made.append(i) or i for i in range(3)), "label", total=3)
    assert made == [] and next(iter(items)) == 0 and made == [0]
