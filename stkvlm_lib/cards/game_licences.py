"""The licences of the game's artwork, and under which a picture of it is offered.

The data (`game_licences.json`) were read from the copyright file of Debian's package of SuperTuxKart's data. That is no
legal advice, and nobody of SuperTuxKart has checked it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stkvlm_lib.files import read_json

CC_BY_SA, GPL, UNKNOWN = "CC-BY-SA-4.0", "GPL-3.0-or-later", "unknown"
HUB_LICENCES = {CC_BY_SA: "cc-by-sa-4.0", GPL: "gpl-3.0", UNKNOWN: "unknown"}
"""What a dataset card's front matter calls them; it has no name for "or later"."""


@dataclass(frozen=True)
class Artwork:
    """What a track or kart has of its own. licences: {licence as the copyright file writes it: number of files}."""

    name: str
    licences: dict[str, int]
    credits: list[str]
    note: str = ""

    @property
    def has_gpl(self) -> bool:
        return any("GPL" in licence for licence in self.licences)


@dataclass(frozen=True)
class GameLicences:
    """package: the one that was read. shared_credits, general_credits: of shared artwork, of the general entry."""

    package: str
    tracks: dict[str, Artwork]
    karts: dict[str, Artwork]
    shared_credits: list[str]
    general_credits: list[str]

    def of_picture(self, track: str, karts: Iterable[str]) -> str:
        """The licence under which a picture is offered, from its track and all karts of its race.

        The GPL where own artwork of one of them stands under it, by name or by the package's general entry.
        """
        shown = [self.tracks.get(track), *(self.karts.get(kart) for kart in karts)]
        if None in shown:
            return UNKNOWN
        return GPL if any(artwork.has_gpl for artwork in shown) else CC_BY_SA


@cache
def game_licences() -> GameLicences:
    data = read_json(Path(__file__).with_suffix(".json"))
    tracks, karts = ({name: Artwork(**own) for name, own in data[kind].items()} for kind in ("tracks", "karts"))
    return GameLicences(data["package"], tracks, karts, data["shared_credits"], data["general_credits"])
