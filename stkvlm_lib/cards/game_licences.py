"""The licences of the game's artwork, and under which a picture of it is offered.

The data (`game_licences.json`) were read from the copyright file of Debian's package of SuperTuxKart's data. That is no
legal advice, and nobody of SuperTuxKart has checked it.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from stkvlm_lib.files import read_json

CC_BY_SA, GPL, UNKNOWN = "CC-BY-SA-4.0", "GPL-3.0-or-later", "unknown"
HUB_LICENCES = {CC_BY_SA: "cc-by-sa-4.0", GPL: "gpl-3.0", UNKNOWN: "unknown"}
"""What a dataset card's front matter calls them; it has no name for "or later"."""


@cache
def game_licences() -> dict[str, Any]:
    """package: the one that was read. tracks, karts: by name, what each has of its own: its name in the game, licences
    as the copyright file writes them with their numbers of files, credits, and a note on some. shared_credits,
    general_credits: of shared artwork, of the general entry."""
    return read_json(Path(__file__).with_suffix(".json"))


def has_gpl(artwork: dict[str, Any]) -> bool:
    """Whether own artwork of a track or kart stands under the GPL."""
    return any("GPL" in licence for licence in artwork["licences"])


def licence_of(track: str, karts: Iterable[str]) -> str:
    """The licence under which a picture is offered, from its track and all karts of its race.

    The GPL where own artwork of one of them stands under it, by name or by the package's general entry.
    """
    known = game_licences()
    shown = [known["tracks"].get(track), *map(known["karts"].get, karts)]
    if None in shown:
        return UNKNOWN
    return GPL if any(map(has_gpl, shown)) else CC_BY_SA
