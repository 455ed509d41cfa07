"""What a model is trained on, token by token, and how its training goes."""

from figure_texts import texts

from stkvlm_lib.exploration.training_plots import label_mask, loss_curve


def test_label_mask_counts_collapses_and_escapes():
    tokens = ["<s>", *["<image>"] * 64, "ĠWhat", "<b>", "Ġtux", "<eos>", "Is", "Ġleft", "<pad>"]
    kept = [False] * 67 + [True] * 2 + [False, True, False]
    segments = [0] * 65 + [1] * 4 + [2] * 2 + [-1]
    shown = label_mask(tokens, kept, segments)
    assert "71 tokens: 65 of the image prefix, 2 questions; 3 tokens take part" in shown
    assert "64 × &lt;image&gt;" in shown and shown.count("&lt;image&gt;") == 1
    assert "<b>" not in shown and "&lt;b&gt;" in shown and "&lt;pad" not in shown
    assert shown.count("font-weight:bold") == 3 + 1, "three tokens and the legend"
    assert "… and 1 more segments" in label_mask(tokens, kept, segments, most=1)


def test_loss_curve_marks_the_best_evaluation():
    rows = [{"step": s, "epoch": 0, "loss": 1 / s} for s in range(1, 9)]
    rows += [{"step": 4, "valid_exact": 0.7, "valid_loss": 1}, {"step": 8, "valid_exact": 0.6, "valid_loss": 1}]
    said = texts(loss_curve(rows))
    assert "n = 8 logged steps" in said and "n = 2 evaluations" in said and "best 70.0%\nat step 4" in said
    assert texts(loss_curve([])).count("nothing logged yet") == 2


def test_loss_curve_shows_the_floor_where_it_is_known():
    rows = [{"step": 4, "valid_exact": 0.7}]
    assert "most frequent answer 41.6%" in texts(loss_curve(rows, majority=0.4156))
    assert "most frequent answer" not in str(texts(loss_curve(rows)))
