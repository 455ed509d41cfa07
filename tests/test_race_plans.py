"""Recipes and the races that follow from them: refused mistakes, balance, seeds apart, pairs kept for test_unseen."""

import json
from collections import Counter
from itertools import combinations

import pytest

from stkvlm_lib.data.frames import FLAT_SPLIT
from stkvlm_lib.game import race_plans
from stkvlm_lib.game.race_plans import (
    KARTS,
    TRACKS,
    UNSEEN,
    PlanError,
    Recipe,
    as_json,
    plan_races,
    read_recipes,
    recipe_for,
)

SPLITS = {
    "train": Recipe(races=4),
    "valid": Recipe(),
    "test": Recipe(),
    UNSEEN: Recipe(karts_min=4, karts_max=5, views=4),
}


@pytest.fixture(scope="module")
def races():
    return plan_races(SPLITS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tracks", ["overworld"]),
        ("tracks", []),
        ("tracks", ["mines", "mines"]),
        ("karts", ["hexley"]),
        ("races", 0),
        ("races", 1.5),
        ("karts_min", 11),
        ("karts_max", 17),
        ("frames", 0),
        ("frames", 257),
        ("views", 0),
        ("views", 7),
        ("seconds_between", 0),
        ("warm_up_min", 17),
        ("warm_up_min", 0.5),
        ("warm_up_max", float("inf")),
        ("reversed_share", 1.1),
        ("size", [300, 300]),
        ("size", [300]),
        ("saved", [450, 300]),
        ("quality", 0),
        ("seed", -1),
        ("seed", True),
        ("seed", 2**15),
        ("colour", "red"),
    ],
)
def test_an_impossible_setting_is_refused_with_its_split_and_name(name, value):
    with pytest.raises(PlanError, match=f"recipe of train.*{name}"):
        read_recipes({"train": {name: value}})


@pytest.mark.parametrize("data", [[], {"train": []}, {"train": {}, "dev": {}}])
def test_what_is_not_a_recipe_is_refused(data):
    with pytest.raises(PlanError, match="recipe"):
        read_recipes(data)


def test_a_recipe_survives_the_way_through_json():
    for recipes in (SPLITS, {FLAT_SPLIT: Recipe(tracks=("mines",), warm_up_max=20)}):
        assert read_recipes(json.loads(json.dumps(as_json(recipes)))) == dict(recipes)


def test_settings_alone_are_a_set_without_splits():
    assert read_recipes({"races": 2}) == {FLAT_SPLIT: Recipe(races=2)}
    assert read_recipes({}) == {FLAT_SPLIT: Recipe()}


@pytest.mark.parametrize("images", [1, 200, 999, 5000])
@pytest.mark.parametrize("tracks", [["mines"], ["mines", "abyss", "xr591"], TRACKS])
def test_a_number_of_pictures_gives_ten_races_or_more_and_little_beyond_it(images, tracks):
    recipe = recipe_for(images, tracks)
    races = plan_races({FLAT_SPLIT: recipe})
    assert len(races) >= 10 and set(recipe.tracks) <= set(tracks)
    assert images <= recipe.images < images + 5 * len(races)


def test_the_default_is_two_hundred_pictures_of_ten_races():
    assert recipe_for().images == 200
    assert len(plan_races({FLAT_SPLIT: recipe_for()})) == 10


def test_the_plan_does_not_depend_on_the_order_in_which_things_are_named(races):
    turned = {
        split: Recipe(**{**as_json(SPLITS)[split], "tracks": TRACKS[::-1], "karts": KARTS[::-1]})
        for split in reversed(SPLITS)
    }
    turned = {split: read_recipes(as_json({split: recipe}))[split] for split, recipe in turned.items()}
    assert plan_races(turned) == races


def test_more_races_leave_those_before_them_as_they_are(races):
    longer = plan_races(SPLITS | {"train": Recipe(races=5)})
    assert [race for race in races if race not in longer] == []


def test_another_seed_gives_other_races(races):
    other = plan_races(
        {split: read_recipes({split: {**plain, "seed": 1}})[split] for split, plain in as_json(SPLITS).items()}
    )
    assert not {race.plan.seed for race in races} & {race.plan.seed for race in other}
    assert [race.plan.karts for race in races] != [race.plan.karts for race in other]


def test_seeds_numbers_and_frame_ids_never_repeat(races):
    assert len({race.plan.seed for race in races}) == len({race.number for race in races}) == len(races)
    ids = [race.frame_id(frame) for race in races for frame in range(race.plan.frames)]
    assert len(set(ids)) == len(ids) and {len(name) for name in ids} == {6}


def test_a_repeated_seed_is_refused(monkeypatch):
    monkeypatch.setattr(race_plans, "_BLOCK", 30)  # too small a block for each split's numbers
    with pytest.raises(PlanError, match="races of train"):
        plan_races({"train": Recipe(races=4)})
    monkeypatch.setattr(race_plans, "SPLITS", ("train",))
    with pytest.raises(PlanError, match="same number"):
        plan_races({"one": Recipe(), "two": Recipe()})


def test_splits_of_different_seeds_are_refused():
    with pytest.raises(PlanError, match="seed"):
        plan_races({"train": Recipe(), "test": Recipe(seed=1)})


def pairs(races):
    return {(race.plan.track, kart) for race in races for kart in race.plan.karts}


def test_pairs_of_test_unseen_occur_in_no_other_split(races):
    unseen = [race for race in races if race.split == UNSEEN]
    assert unseen and not pairs(unseen) & pairs(race for race in races if race.split != UNSEEN)
    assert {len(race.plan.karts) for race in unseen} == {4, 5}


def test_every_kart_is_in_every_split_and_a_split_that_lacks_one_is_refused(races):
    for split in SPLITS:
        assert {kart for race in races if race.split == split for kart in race.plan.karts} == set(KARTS)
    with pytest.raises(PlanError, match="recipe of test: no race would have"):
        plan_races({"train": Recipe(), "test": Recipe(tracks=("mines",))})


def test_line_ups_too_long_for_what_is_left_on_a_track_are_refused():
    with pytest.raises(PlanError, match="recipe of train: karts_max=12.*5 karts of every track are kept"):
        plan_races(SPLITS | {"train": Recipe(karts_max=12)})
    with pytest.raises(PlanError, match="recipe of test_unseen: karts_max=10"):
        plan_races(SPLITS | {UNSEEN: Recipe()})


def test_every_kart_drives_about_equally_often_overall_and_at_every_place(races):
    train = [race.plan for race in races if race.split == "train"]
    overall = Counter(kart for plan in train for kart in plan.karts)
    assert max(overall.values()) - min(overall.values()) <= 0.2 * max(overall.values())
    for place in range(5):
        at_place = Counter(plan.karts[place] for plan in train)
        assert max(at_place.values()) <= 2 * len(train) / len(KARTS) and len(at_place) == len(KARTS)


def test_no_kart_goes_with_a_track():
    races = plan_races({FLAT_SPLIT: Recipe(races=8)})
    together = Counter((race.plan.track, kart) for race in races for kart in race.plan.karts)
    assert len(together) == len(TRACKS) * len(KARTS)
    assert max(together.values()) - min(together.values()) <= 2
    line_ups = [frozenset(race.plan.karts) for race in races]
    assert max(Counter(line_ups).values()) <= 2
    mates = Counter(pair for line_up in line_ups for pair in combinations(sorted(line_up), 2))
    assert max(mates.values()) < 2 * sum(mates.values()) / len(mates), "and no kart goes with another"


def test_line_ups_settings_vary_as_asked(races):
    plans = [race.plan for race in races if race.split == "train"]
    assert {len(plan.karts) for plan in plans} == {6, 7, 8, 9, 10}
    assert all(len(set(plan.karts)) == len(plan.karts) and plan.views == 5 for plan in plans)
    assert 0 < sum(plan.reverse for plan in plans) < 0.3 * len(plans)
    assert all(8 <= plan.warm_up <= 16 for plan in plans) and len({plan.warm_up for plan in plans}) > 20


def test_reserved_karts_are_spread_evenly():
    reserved = race_plans.reserved_karts(Recipe())
    uses = Counter(kart for karts in reserved.values() for kart in karts)
    assert set(reserved) == set(TRACKS) and {len(karts) for karts in reserved.values()} == {5}
    assert set(uses) == set(KARTS) and max(uses.values()) - min(uses.values()) <= 1
