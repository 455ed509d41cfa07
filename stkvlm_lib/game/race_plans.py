"""What is to be rendered: recipes of sets, and the races that follow from them, line-ups drawn so that no kart goes
with a track.

A recipe says how many races of which kind a set has; `plan_races` draws them. The same recipe gives the same races,
whatever is rendered when and where.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from stkvlm_lib.config import MOST_GAME_SEED
from stkvlm_lib.data.frames import FLAT_SPLIT, SPLITS
from stkvlm_lib.game.race_renderer import SETTLED, RacePlan
from stkvlm_lib.grammar import names
from stkvlm_lib.typed import TypedError, read_value

TRACKS = tuple(track for track in names.TRACKS if track not in ("overworld", "tutorial"))
"""The race tracks of SuperTuxKart 1.4 that the game can drive."""
KARTS = tuple(kart for kart in names.KARTS if kart not in names.COURSE_ONLY_KARTS)
UNSEEN = "test_unseen"
"""The split whose (track, kart) pairs never occur in the others."""
RESERVED = 5
"""Karts that each track keeps for the split `test_unseen`."""
_BLOCK = 2**14
_MAX_FRAMES = 256


class PlanError(ValueError):
    """A recipe that cannot be rendered as asked; the message names the setting and what is possible."""


@dataclass(frozen=True)
class Recipe:
    """What one split, or a set without splits, holds.

    tracks, karts: what can occur. races: how many on each track; reversed_share: of them, driven the other way round.
    karts_min, karts_max: karts in a race. frames: moments a race; views: pictures a moment, of its first karts.
    seconds_between: of game time; warm_up_min, warm_up_max: before the first frame (the countdown takes 6 s), drawn.
    size: px as rendered; saved: px as written; quality: of the JPEGs. seed: of everything drawn, the races' own too.
    """

    __pydantic_config__: ClassVar = {"allow_inf_nan": False}

    tracks: tuple[str, ...] = TRACKS
    karts: tuple[str, ...] = KARTS
    races: int = 1
    karts_min: int = 6
    karts_max: int = 10
    frames: int = 10
    views: int = 5
    seconds_between: float = 2.0
    warm_up_min: float = 8.0
    warm_up_max: float = 16.0
    reversed_share: float = 0.15
    size: tuple[int, int] = (300, 200)
    saved: tuple[int, int] = (192, 128)
    quality: int = 85
    seed: int = 0

    def __post_init__(self):
        for name, known in (("tracks", TRACKS), ("karts", KARTS)):
            given = getattr(self, name)
            if unknown := [item for item in given if item not in known]:
                raise PlanError(f"{name}: unknown {', '.join(map(str, unknown))}; valid ones are {', '.join(known)}")
            _require(given and len(set(given)) == len(given), name, given, "a list of different names")
            object.__setattr__(self, name, tuple(sorted(given)))  # the order in which they are named means nothing
        _require(self.races >= 1, "races", self.races, "a number of races on each track, from 1")
        fits = 1 <= self.karts_min <= self.karts_max <= len(self.karts)
        _require(fits, "karts_min, karts_max", (self.karts_min, self.karts_max), f"in 1..{len(self.karts)}, min first")
        _require(1 <= self.frames <= _MAX_FRAMES, "frames", self.frames, f"in 1..{_MAX_FRAMES}")
        _require(1 <= self.views <= self.karts_min, "views", self.views, f"in 1..{self.karts_min} (karts_min)")
        _require(self.seconds_between >= 0.1, "seconds_between", self.seconds_between, "at least 0.1")
        ordered = SETTLED <= self.warm_up_min <= self.warm_up_max
        given = (self.warm_up_min, self.warm_up_max)
        _require(ordered, "warm_up_min, warm_up_max", given, f"seconds from {SETTLED}, min first")
        _require(0 <= self.reversed_share <= 1, "reversed_share", self.reversed_share, "a share from 0 to 1")
        for name in ("size", "saved"):
            width, height = getattr(self, name)
            ok = 16 <= width <= 2048 and 2 * width == 3 * height
            _require(ok, name, (width, height), "width and height in the course's 3:2, e.g. 300, 200")
        _require(self.saved[0] <= self.size[0], "saved", self.saved, f"no larger than rendered ({self.size})")
        _require(1 <= self.quality <= 100, "quality", self.quality, "in 1..100")
        _require(0 <= self.seed <= MOST_GAME_SEED, "seed", self.seed, f"in 0..{MOST_GAME_SEED}")

    @property
    def images(self) -> int:
        """Pictures of the whole set when nothing is skipped."""
        return len(self.tracks) * self.races * self.frames * self.views


@dataclass(frozen=True)
class PlannedRace:
    """A race of a set. number: unique in the set."""

    number: int
    split: str
    plan: RacePlan

    @property
    def id(self) -> str:
        """Its number as files and people write it; the ids of its frames begin with it."""
        return f"{self.number:04x}"

    def frame_id(self, frame: int) -> str:
        return f"{self.id}{frame:02x}"


Recipes = Mapping[str, Recipe]
"""Split -> its recipe; {FLAT_SPLIT: recipe} for a set without splits."""


def read_recipes(data: Any) -> dict[str, Recipe]:
    """JSON -> recipes: `{"train": {...}, "test": {...}}`, or the settings of one set without splits directly.

    Raises PlanError naming the split and the setting that is unknown or impossible.
    """
    if not isinstance(data, dict):
        raise PlanError(f"a recipe is a JSON object, not a {type(data).__name__}")
    if FLAT_SPLIT in data or not set(data) & set(SPLITS):
        return {FLAT_SPLIT: _recipe(data.get(FLAT_SPLIT, data), "recipe")}
    if unknown := sorted(set(data) - set(SPLITS)):
        raise PlanError(f"recipe: unknown split {', '.join(unknown)}; valid ones are {', '.join(SPLITS)}")
    return {split: _recipe(data[split], f"recipe of {split}") for split in SPLITS if split in data}


def as_json(recipes: Recipes) -> dict[str, dict[str, Any]]:
    """Recipes as `read_recipes` reads them."""
    return {
        split: {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(recipe).items()}
        for split, recipe in recipes.items()
    }


def recipe_for(images: int = 200, tracks: Iterable[str] = TRACKS, seed: int = 0) -> Recipe:
    """A recipe of at least `images` pictures in at least ten races, so that they can be split by race.

    Fewer than ten pictures a track: only some of the tracks, drawn by seed.
    """
    tracks = sorted(set(tracks))
    base = Recipe(tracks=tuple(tracks), seed=seed)
    _require(images >= 1, "images", images, "a number of pictures from 1")
    wanted = max(10, math.ceil(images / (base.views * base.frames)))
    if wanted < len(tracks):
        tracks = random.Random(f"tracks-{seed}").sample(tracks, wanted)
    races = math.ceil(wanted / len(tracks))
    frames = math.ceil(images / (base.views * races * len(tracks)))
    return replace(base, tracks=tuple(tracks), races=races, frames=frames)


def plan_races(recipes: Recipes) -> list[PlannedRace]:
    """All races of a set, split by split, in each the first race of every track before the second of any.

    Raises PlanError when splits differ in seed, when line-ups cannot be drawn, or when a split would lack a kart.
    """
    seeds = {recipe.seed for recipe in recipes.values()}
    _require(len(seeds) == 1, "seed", sorted(seeds), "the same in all splits, whose races it keeps apart")
    reserved = reserved_karts(recipes[UNSEEN]) if UNSEEN in recipes else {}
    races = [race for split in sorted(recipes) for race in _plan_split(split, recipes[split], reserved)]
    races.sort(key=lambda race: race.number)
    if len({race.number for race in races}) < len(races):  # nor have two the same seed, which follows from it
        raise PlanError("two races of the set have the same number; use fewer races")
    if len(recipes) > 1:
        _check_every_kart(recipes, races)
    return races


def rows(races: Iterable[PlannedRace]) -> list[dict[str, Any]]:
    """One row a race, as people read it."""
    return [
        {
            "race": race.id,
            "split": race.split,
            "track": race.plan.track,
            "driven": "reversed" if race.plan.reverse else "forward",
            "frames": race.plan.frames,
            "karts": ", ".join(race.plan.karts),
        }
        for race in races
    ]


def reserved_karts(recipe: Recipe) -> dict[str, frozenset[str]]:
    """For every track of the game the RESERVED karts that only races of `test_unseen` have there.

    Every kart is reserved on about equally many tracks.
    """
    rng = random.Random(f"reserved-{recipe.seed}")
    uses: Counter[str] = Counter()
    reserved = {}
    for track in TRACKS:
        chosen = sorted(recipe.karts, key=lambda kart: (uses[kart], rng.random()))[:RESERVED]
        uses.update(chosen)
        reserved[track] = frozenset(chosen)
    return reserved


def _plan_split(split: str, recipe: Recipe, reserved: Mapping[str, frozenset[str]]) -> list[PlannedRace]:
    first = SPLITS.index(split) * _BLOCK if split in SPLITS else 0
    count = recipe.races * len(recipe.tracks)
    _require(count <= _BLOCK, f"races of {split}", count, f"at most {_BLOCK}")
    uses: Counter = Counter()
    races = []
    for number in range(first, first + count):
        track = recipe.tracks[(number - first) % len(recipe.tracks)]
        kept = reserved.get(track, frozenset())
        allowed = [kart for kart in recipe.karts if not reserved or (kart in kept) == (split == UNSEEN)]
        if len(allowed) < recipe.karts_max:
            why = f"; {RESERVED} karts of every track are kept for {UNSEEN}" if reserved else ""
            raise PlanError(
                f"recipe of {split}: karts_max={recipe.karts_max}, but {len(allowed)} can drive {track}{why}"
            )
        seed = recipe.seed * 4 * _BLOCK + number
        rng = random.Random(f"race-{seed}")
        karts = _line_up(track, allowed, rng.randint(recipe.karts_min, recipe.karts_max), uses, rng)
        plan = RacePlan(
            seed=seed,
            track=track,
            karts=karts,
            views=min(recipe.views, len(karts)),
            frames=recipe.frames,
            seconds_between=recipe.seconds_between,
            warm_up=round(rng.uniform(recipe.warm_up_min, recipe.warm_up_max), 1),
            reverse=rng.random() < recipe.reversed_share,
        )
        races.append(PlannedRace(number, split, plan))
    return races


def _line_up(track: str, allowed: list[str], n: int, uses: Counter, rng: random.Random) -> tuple[str, ...]:
    """n karts, drawn so that all occur about equally often on each track, overall, and at each place.

    uses: of each kart, (track, kart) and (place, kart) in the line-ups before; counts on.
    """
    chosen = sorted(allowed, key=lambda kart: (uses[track, kart], uses[kart], rng.random()))[:n]
    karts = []
    for place in range(n):
        kart = min(chosen, key=lambda kart: (uses[place, kart], rng.random()))  # noqa: B023
        chosen.remove(kart)
        karts.append(kart)
        uses.update([kart, (track, kart), (place, kart)])
    return tuple(karts)


def _check_every_kart(recipes: Recipes, races: list[PlannedRace]) -> None:
    for split, recipe in recipes.items():
        used = {kart for race in races if race.split == split for kart in race.plan.karts}
        if missing := sorted(set(recipe.karts) - used):
            raise PlanError(
                f"recipe of {split}: no race would have {', '.join(missing)}; add races, tracks, or a larger karts_max"
            )


def _recipe(data: Any, where: str) -> Recipe:
    known = [field.name for field in fields(Recipe)]
    try:
        recipe = read_value(data, Recipe)
    except TypedError as error:
        raise PlanError(str(error.within(where, ": "))) from None
    if unknown := sorted(set(data) - set(known)):
        raise PlanError(f"{where}: unknown setting {', '.join(unknown)}; valid ones are {', '.join(known)}")
    return recipe


def _require(condition: Any, name: str, value: Any, wanted: str) -> None:
    if not condition:
        raise PlanError(f"{name}={value!r}: must be {wanted}")
