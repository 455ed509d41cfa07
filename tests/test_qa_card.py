from dataclasses import replace

import pytest

from stkvlm_lib.cards.qa_card import (
    Facts,
    balance_rows,
    count_rows,
    decline_rows,
    family_rows,
    make_card,
    notebook_command,
    wording_rows,
)
from stkvlm_lib.config import QaConfig
from stkvlm_lib.exploration import qa_plots
from stkvlm_lib.grammar.questions import FAMILIES
from stkvlm_lib.parallel import Workers
from stkvlm_lib.qa.blind import guesses
from stkvlm_lib.qa.contrast import read_contrast
from stkvlm_lib.qa.generate import Plan, Tally
from stkvlm_lib.qa.label_check import MarksByOrigin, draw_sample, mark
from stkvlm_lib.qa.leaks import check_leaks
from stkvlm_lib.qa.qa_sets import read_records

EMPTY = Tally(pictures=0, course={}, candidates={}, extended={}, declined={}, choices=0, contrast=0)


@pytest.fixture(scope="module")
def facts(written, few):
    folder, tallies = written
    some = {split: frames[:3] for split, frames in few.items()}
    train, test = (read_records(folder / f"{split}_extended.jsonl") for split in ("train", "test"))
    marks = [mark(record, "wrong" if i == 0 else "right") for i, record in enumerate(draw_sample(folder, 40, 0))]
    found = guesses(train, test)
    leaks = check_leaks(some, Workers(quiet=True))
    return Facts(tallies, Plan(), "test", leaks, found, found, MarksByOrigin(drawn=marks))


def test_the_card_tells_counts_guesses_label_error_and_how_it_was_made(facts):
    card = make_card(facts, "A title", "the command")
    assert card.startswith("# A title\n") and "the command" in card and "{{" not in card and "{%" not in card
    total = sum(tally.questions for tally in facts.tallies.values())
    assert f"{total:,} questions" in card
    assert "40 labels were drawn" in card and "1 of them are wrong" in card and "2.5%" in card
    assert "not drawn" not in card and "no longer hold" not in card
    for family in FAMILIES.values():
        assert f"| {family.template} |" in card
    for found in facts.guesses:
        assert f"| {found.family} | {found.n:,} |" in card
    for heading in ("Rules", "Balance", "What can be guessed", "Leaks", "Known limits", "Licences"):
        assert f"\n## {heading}\n" in card


def test_marks_on_labels_that_were_not_drawn_are_told_apart(facts):
    first, *others = facts.marks.drawn
    card = make_card(replace(facts, marks=MarksByOrigin(others, [first], [first])), "A title", "the command")
    assert "39 labels were drawn" in card and "0 of them are wrong" in card
    assert "1 more were not drawn but chosen" in card and "| chosen, not drawn | 1 | 1 |" in card
    assert "1 more were marked that these files no longer hold" in card and "| no longer asked | 1 | 1 |" in card


def test_the_card_says_what_was_not_measured():
    card = make_card(Facts({"all": EMPTY}, Plan(ratio=0), "all"), "A title", "the command")
    assert "nobody has marked labels" in card and "no train questions to learn from" in card
    assert "only one split" in card and "left as they are" in card


def test_the_command_names_what_differs_from_the_defaults():
    assert "-p" not in notebook_command(QaConfig(run_dir="outputs/x")).split("out.ipynb")[1]
    command = notebook_command(QaConfig(frames_dir="my data", seed=3))
    assert command.endswith("notebooks/02_generate_qa.ipynb out.ipynb -p FRAMES_DIR 'my data' -p SEED 3")


def test_tables_have_a_row_for_every_family_and_add_up(facts):
    rows = count_rows(facts.tallies)
    assert [row["family"] for row in rows] == [*FAMILIES, "all"]
    for name in list(rows[0])[1:]:
        assert sum(row[name] for row in rows[:-1] if row[name] != "–") == rows[-1][name]
    assert [row["family"] for row in family_rows()] == list(FAMILIES) == [row["family"] for row in wording_rows()]
    assert all(row["held out"] == FAMILIES[row["family"]].paraphrases[-1] for row in wording_rows())
    balance = {row["family"]: row for row in balance_rows(facts.tallies["test"])}
    assert balance["count"]["most frequent answer"] == "1"
    assert balance["count"]["after"] < balance["count"]["questions before"]
    declined = sum(n for t in facts.tallies.values() for reasons in t.declined.values() for n in reasons.values())
    assert sum(row["questions"] for row in decline_rows(facts.tallies)) == declined


def texts(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels()))


def test_figures_show_every_family_with_its_n(facts):
    tally = facts.tallies["test"]
    assert f"{sum(tally.extended['in_view'].values()):,} stay" in texts(qa_plots.asked_and_declined(tally))
    before, after = (sum(counts["count"].values()) for counts in (tally.candidates, tally.extended))
    assert f"count  ({before:,} → {after:,})" in texts(qa_plots.before_and_after(tally))
    chart = qa_plots.guess_chart(facts.guesses, facts.extended_guesses)
    assert texts(chart).count(f"in_view  (n = {next(g.n for g in facts.guesses if g.family == 'in_view'):,})") == 2


def test_figures_without_anything_to_show_say_so(bundled):
    for figure in (
        qa_plots.asked_and_declined(EMPTY),
        qa_plots.before_and_after(EMPTY),
        qa_plots.guess_chart([], []),
        qa_plots.contrast_gallery([], bundled),
        qa_plots.closest_pairs([]),
    ):
        assert not figure.axes and figure.texts[0].get_text()


def test_pairs_of_pictures_stand_side_by_side(written, bundled, facts):
    items = read_contrast(written[0] / "test_contrast.jsonl")
    figure = qa_plots.contrast_gallery(items, bundled, 4)
    assert len(figure.axes) == 8
    captions = [axes.texts[0].get_text() for axes in figure.axes]
    for first, second in zip(captions[::2], captions[1::2], strict=True):
        assert first.split("→")[0] == second.split("→")[0] and first.split("→")[1] != second.split("→")[1]
    assert any("mirrored" in caption for caption in captions) and len(set(captions[::2])) == 4
    assert len(qa_plots.closest_pairs(facts.comparisons, 2).axes) == 4
