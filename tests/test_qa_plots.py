"""Charts and samples of questions count what they show."""

from figure_texts import texts

from stkvlm_lib.exploration.qa_plots import composition, draw_samples, qa_samples


def test_composition_shows_counts_and_names_the_answers(records):
    figure = composition({"left_right": {"left": 30, "right": 10}, "track": {f"t{i}": 1 for i in range(23)}})
    said = texts(figure)
    assert "n = 40, 2 answers" in said and "n = 23, 23 answers" in said
    assert all(f"t{i}" in said for i in range(23)), "each of 23 tracks is named"
    assert max(patch.get_width() for patch in figure.axes[0].patches) == 0.75
    assert f"n = {sum(r.family == 'ego' for r in records):,}" in texts(composition(records))
    assert "No questions." in texts(composition([]))


def test_samples_come_from_every_family_whatever_the_order(bundled, records):
    one = texts(qa_samples(records, bundled, 10, seed=1))
    assert one == texts(qa_samples(records[::-1], bundled, 10, seed=1))
    assert one != texts(qa_samples(records, bundled, 10, seed=2))
    assert "What track is this?" in one and "behind the ego car?" in one and one.count("answer:") == 10
    pictures = [record.image_file for record in draw_samples(records, 10, seed=1)]
    assert len(set(pictures)) == len(pictures) == 10
