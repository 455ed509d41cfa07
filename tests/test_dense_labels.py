"""Dense labels of hand-made scenes, and the heads that learn them."""

import numpy as np
import pytest
import torch

from stkvlm_lib.grammar.questions import KARTS, TRACKS
from stkvlm_lib.grammar.scene import Kart, Scene
from stkvlm_lib.pretraining.dense_labels import DenseHeads, batch_targets, dense_targets
from stkvlm_lib.pretraining.embedded import GRID


def grid(values: np.ndarray) -> np.ndarray:
    return values.reshape(GRID, GRID, *values.shape[1:])


def test_dense_targets_of_a_hand_made_scene():
    """A patch is 6.25 x 4.17 px. tux covers the middles of columns 3..6 and rows 12..14; its own lies in (5, 13)."""
    tux = Kart(0, "tux", (20, 50, 45, 62))
    targets = dense_targets(Scene("mines", (tux,), tux))
    covered = np.zeros((GRID, GRID), bool)
    covered[12:15, 3:7] = True
    assert (grid(targets["kart"]) == np.where(covered, KARTS.index("tux") + 1, 0)).all()
    box = np.array([20 / 150, 50 / 100, 45 / 150, 62 / 100]) * GRID
    for row, column in np.argwhere(covered):
        expected = box - [column + 0.5, row + 0.5] * 2
        assert grid(targets["edges"])[row, column] == pytest.approx(expected, abs=1e-5)
    is_ego, holds_centre, right, front = np.moveaxis(grid(targets["flags"]), -1, 0)
    assert np.isnan(right[covered]).all() and np.isnan(front[covered]).all()
    assert (is_ego == covered).all()
    assert np.argwhere(holds_centre).tolist() == [[13, 5]]
    assert targets["track"] == TRACKS.index("mines")
    assert not grid(targets["edges"])[~covered].any()
    assert targets["ego"] == KARTS.index("tux") + 1
    assert targets["counts"].tolist() == [1, 0, 0, 0, 0]
    assert np.flatnonzero(targets["present"]).tolist() == [KARTS.index("tux")]


def test_dense_targets_tell_the_ego_kart_from_others():
    ego, other = Kart(0, "tux", (65, 40, 85, 60)), Kart(1, "gnu", (5, 5, 25, 25))
    targets = dense_targets(Scene("mines", (other, ego), ego))
    names = {name: grid(targets["kart"]) == KARTS.index(name) + 1 for name in ("tux", "gnu")}
    flags = grid(targets["flags"])
    assert names["tux"].any() and names["gnu"].any()
    assert (flags[names["tux"], 0] == 1).all() and (flags[names["gnu"], 0] == 0).all()
    assert flags[..., 1].sum() == 2
    assert (flags[names["gnu"], 2] == 0).all() and (flags[names["gnu"], 3] == 1).all()  # left and in front
    assert targets["counts"].tolist() == [2, 1, 0, 1, 0]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_kart_lower_in_the_picture_covers_the_other(reverse):
    far, near = Kart(0, "tux", (60, 30, 90, 60)), Kart(1, "gnu", (60, 45, 90, 80))
    karts = (near, far) if reverse else (far, near)
    kart = grid(dense_targets(Scene("mines", karts, far))["kart"])
    assert kart[13, 12] == KARTS.index("gnu") + 1  # row 13 is y 54..58, in both boxes
    assert kart[9, 12] == KARTS.index("tux") + 1


def test_a_kart_smaller_than_a_patch_still_has_one():
    small = Kart(0, "xue", (16, 15, 21, 18))  # between the patch centres at 15.6, 21.9 across and 14.6, 18.8 down
    targets = dense_targets(Scene("mines", (small,), small))
    assert np.argwhere(grid(targets["kart"])).tolist() == [[3, 2]]


def test_a_scene_without_karts_is_background():
    targets = dense_targets(Scene("abyss", (), None))
    assert not targets["kart"].any() and not targets["flags"].any()
    assert targets["ego"] == 0 and not targets["counts"].any() and not targets["present"].any()
    shapes = {name: value.shape for name, value in targets.items()}
    patches = GRID * GRID
    assert shapes == {
        "kart": (patches,),
        "edges": (patches, 4),
        "flags": (patches, 4),
        "track": (),
        "ego": (),
        "counts": (5,),
        "present": (len(KARTS),),
    }


def heads_that_know(targets: dict) -> DenseHeads:
    """Heads on one-hot features of two kinds of patches, 0 background and 1 the kart of the targets."""
    heads = DenseHeads(2)
    kart = int(targets["kart"].max())
    with torch.no_grad():
        heads.patch.weight.zero_(), heads.patch.bias.zero_()
        heads.patch.weight[0, 0] = heads.patch.weight[kart, 1] = 50
    return heads


def test_the_heads_are_right_where_the_features_tell():
    tux = Kart(0, "tux", (20, 50, 45, 62))
    targets = batch_targets([Scene("mines", (tux,), tux)] * 2)
    index = torch.arange(GRID * GRID).expand(2, -1)
    features = torch.nn.functional.one_hot((targets["kart"] > 0).long(), 2).float()
    loss, values = heads_that_know(targets)(features, targets, index)
    assert values["kart"] < 1e-6 and values["kart_right"] == 1
    _, wrong = heads_that_know(targets)(features.flip(-1), targets, index)
    assert wrong["kart"] > 1 and wrong["kart_right"] == 0
    assert torch.isfinite(loss)


def test_labels_follow_the_patches_looked_at():
    tux = Kart(0, "tux", (20, 50, 45, 62))
    targets = batch_targets([Scene("mines", (tux,), tux)])
    index = (targets["kart"] > 0).nonzero()[:, 1][None].flip(1)  # the kart's patches alone
    features = torch.tensor([0.0, 1.0]).expand(1, index.shape[1], 2)
    assert heads_that_know(targets)(features, targets, index)[1]["kart"] < 1e-6


def test_a_batch_without_karts_has_a_finite_loss():
    targets = batch_targets([Scene("abyss", (), None)])
    loss, values = DenseHeads(4)(torch.randn(1, GRID * GRID, 4), targets, torch.arange(GRID * GRID)[None])
    assert torch.isfinite(loss) and values["kart_right"].isnan()
