"""Where frames come from, told by what lies in their data folder, and what the keys of an info file mean."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frames import FLAT_SPLIT, Frame, FramesError
from stkvlm_lib.files import read_json
from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grouping import grouped

MANIFEST = "manifest.json"
COURSE_KEYS = {"track", "karts", "detections", "distance_down_track", "velocity"}
"""The keys of the course's info files; rendered ones have more."""
KEYS = {
    "track": "name of the track",
    "karts": "names; a kart's place in the list is its id",
    "detections": "a list a view: class (1 is a kart), id, x1, y1, x2, y2 in whole px of a 600x400 frame, y down",
    "distance_down_track": "metres, one a kart",
    "velocity": "m/s, three numbers a kart",
    "visible": "per detection: share 0..1 of the kart's pixels that nothing nearer covers",
    "pixels": "per detection: the kart's pixels in view, counted in the picture as rendered (`image_size`)",
    "distance": "per detection: metres from the camera",
    "in_image": "per detection: share 0..1 of the box that is inside the picture",
    "box_raw": "per detection: projection of the kart's extent, not clipped, in px of the 600x400 frame",
    "hidden": "a list a view: karts too little of which is in view for a detection, with `box_raw`",
    "box_frame": "the frame of the boxes: width, height",
    "image_size": "width, height of the picture as rendered",
    "view": "4x4 view matrix a view; row vectors: clip = [x y z 1] view projection",
    "projection": "4x4 projection matrix a view",
    "fov": "field of view, degrees of the height",
    "model_pose": "per kart: rotation (9 numbers) and place (3) of the model as drawn",
    "location": "per kart: metres",
    "rotation": "per kart: quaternion",
    "size": "per kart: metres",
    "position": "per kart: place in the race",
    "laps": "per kart: laps done",
    "overall_distance": "per kart: metres since the start",
    "time": "seconds since the start",
    "race": "number of the race",
    "race_seed": "seed of the race, which names it",
    "frame": "number of the frame in its race",
    "reverse": "whether the track is driven the other way round",
}


class Kind(StrEnum):
    """rendered: from the game, with a manifest; unrecorded: from the game without one; course: UT Austin's data."""

    RENDERED = "rendered"
    UNRECORDED = "unrecorded"
    COURSE = "course"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """Where the frames of one data folder come from. keys: those of an info file; manifest: empty but for RENDERED."""

    root: Path
    kind: Kind
    frames: list[Frame] = field(repr=False)
    keys: tuple[str, ...]
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_game(self) -> bool:
        return self.kind in (Kind.RENDERED, Kind.UNRECORDED)


def find_sources(frame_set: FrameSet) -> list[Source]:
    """The data folders of a set and where each comes from, by what lies in it: a manifest, or the keys of info files.

    Raises FramesError for a manifest that cannot be read.
    """
    return [_find_source(root, frames) for root, frames in sorted(grouped(frame_set.frames(), _home).items())]


def _home(frame: Frame) -> Path:
    """The data folder in which a frame lies."""
    return frame.folder.parent if frame.folder.name == frame.split != FLAT_SPLIT else frame.folder


def _find_source(root: Path, frames: list[Frame]) -> Source:
    keys = tuple(read_json(frames[0].info_path))
    manifest = {}
    if (root / MANIFEST).is_file():
        try:
            manifest = read_json(root / MANIFEST)
        except ValueError as error:
            raise FramesError(f"{error}; without it the card says that settings are not known") from None
    if isinstance(manifest, dict) and "recipe" in manifest and "races" in manifest:
        return Source(root, Kind.RENDERED, frames, keys, manifest)
    if "race_seed" in keys:
        return Source(root, Kind.UNRECORDED, frames, keys)
    named = all(frame.track in TRACKS and set(frame.karts) <= set(KARTS) for frame in frames)
    course = named and set(keys) == COURSE_KEYS
    return Source(root, Kind.COURSE if course else Kind.UNKNOWN, frames, keys)
