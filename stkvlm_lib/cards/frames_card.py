"""Dataset cards: what a set of frames holds, where it comes from, what is missing, and under which licences it stands.

A card is Markdown with the front matter of the Hugging Face hub. Its prose is in frames_card_template.md, its numbers
are here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from stkvlm_lib.cards.frame_sources import KEYS, MANIFEST, Kind, Source, find_sources
from stkvlm_lib.cards.game_licences import CC_BY_SA, GPL, HUB_LICENCES, UNKNOWN, game_licences, has_gpl, licence_of
from stkvlm_lib.config import ROOT
from stkvlm_lib.data.frame_sets import FrameSet
from stkvlm_lib.data.frame_statistics import karts_of, track_kart_pairs, tracks_of
from stkvlm_lib.data.frames import BOX_FRAME, FLAT_SPLIT, KART_CLASS, Frame
from stkvlm_lib.data.pictures import decode_image
from stkvlm_lib.files import write_text
from stkvlm_lib.grammar.names import KARTS, TRACKS
from stkvlm_lib.grammar.scene import read_scene
from stkvlm_lib.markdown import Formatted, cell, code, escaped, folded, share, table
from stkvlm_lib.templates import render

MAX_RACES = 300
"""Sets of more races do not list them one by one."""
SAME_SHAPE = 0.02
"""So far may the proportions of pictures be from those of the game's, as a share, which nobody sees."""

SETTINGS = {
    "tracks": "tracks",
    "karts": "karts",
    "races": "races on each track",
    "karts_min": "karts in a race, at least",
    "karts_max": "karts in a race, at most",
    "frames": "frames a race",
    "views": "pictures a frame",
    "seconds_between": "seconds of game between frames",
    "warm_up_min": "seconds of game before the first frame, at least",
    "warm_up_max": "seconds of game before the first frame, at most",
    "reversed_share": "share of races driven the other way round",
    "size": "rendered at, px",
    "saved": "saved at, px",
    "quality": "JPEG quality",
    "seed": "seed",
}


def write_card(frame_set: FrameSet, path: str | Path, title: str = "") -> Path:
    """Write the card of a set. Raises FramesError when its manifest cannot be read."""
    write_text(path, make_card(frame_set, title))
    return Path(path)


def make_card(frame_set: FrameSet, title: str = "") -> str:
    """The card of a set as Markdown, the same for the same files."""
    sources = find_sources(frame_set)
    rendered = [frame for source in sources if source.is_game for frame in source.frames]
    offered = Counter(licence_of(frame.track, frame.karts) for frame in rendered for _ in range(frame.view_count))
    kinds, kept = {source.kind for source in sources}, _kept(frame_set)
    of_game = kinds != {Kind.UNKNOWN}
    named = ", ".join(source.root.resolve().name for source in sources)
    title = title or f"Frames{' of SuperTuxKart' if of_game else ''} ({named})"
    keys = dict.fromkeys(key for source in sources for key in source.keys)
    return render(
        Path(__file__).with_name("frames_card_template.md"),
        front_matter=_front_matter(frame_set, sources, offered, title),
        title=escaped(title),
        of_game=of_game,
        splits=frame_set.splits,
        contents=_contents(frame_set),
        pictures=_pictures(frame_set),
        sources=[_source_text(source, len(sources)) for source in sources],
        in_view=_in_view(kept),
        line_ups=_line_ups(frame_set),
        keys=table({"key": code(key), "value": Formatted(KEYS.get(key, ""))} for key in keys),
        gaps="\n".join(f"- {gap}" for gap in _gaps(frame_set, sources, kept)),
        course=Kind.COURSE in kinds,
        unknown=Kind.UNKNOWN in kinds,
        rendered=bool(rendered),
        most_races=MAX_RACES,
        cell=cell,
        licences=game_licences(),
        has_gpl=has_gpl,
        offered={"CC_BY_SA": offered[CC_BY_SA], "GPL": offered[GPL], "UNKNOWN": offered[UNKNOWN]},
        tracks=sorted(tracks_of(rendered)),
        karts=sorted(karts_of(rendered)),
    )


def _front_matter(frame_set: FrameSet, sources: Sequence[Source], offered: Counter, title: str) -> str:
    """YAML as the Hugging Face hub reads it."""
    extra: dict[str, Any] = {}
    if all(source.is_game for source in sources):
        licence = [HUB_LICENCES[name] for name in (CC_BY_SA, GPL, UNKNOWN) if offered[name]]
    elif any(source.kind == Kind.COURSE for source in sources):
        licence, extra["license_name"] = "other", "not-to-be-redistributed"
    else:
        licence = "unknown"
    if len(sources) == 1 and FLAT_SPLIT not in frame_set.splits:
        filled = {split: frames for split, frames in frame_set.splits.items() if frames}
        files = [{"split": split, "path": _pattern(split, frames)} for split, frames in filled.items()]
        extra["configs"] = [{"config_name": "default", "data_files": files, "drop_labels": True}]
    return DatasetCardData(
        language="en",
        license=licence,
        pretty_name=title,
        size_categories=size_category(len(frame_set)),
        task_categories=["visual-question-answering", "object-detection"],
        tags=["supertuxkart", "synthetic", "simulation"],
        **extra,
    ).to_yaml()


def _pattern(split: str, frames: Sequence[Frame]) -> str:
    """What names the pictures of a split, and nothing else."""
    return f"{split}/*_im.*" if any(frame.pictures for frame in frames) else f"{split}/*.jpg"


def size_category(n: int) -> str:
    """What the hub calls a set of n."""
    below = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for limit, name in below.items() if n < limit), "1M<n<10M")


def _contents(frame_set: FrameSet) -> str:
    rows = [{name.replace("views", "pictures"): value for name, value in row.items()} for row in frame_set.summary()]
    if len(rows) > 1:
        frames = frame_set.frames()
        counted = {name: sum(row[name] for row in rows) for name in ("races", "frames", "pictures")}
        names = {"tracks": len(tracks_of(frames)), "karts": len(karts_of(frames))}
        rows.append({"split": Formatted("**all**")} | counted | names)
    return table(rows, right=True)


def _pictures(frame_set: FrameSet) -> str:
    """Sizes in px and bytes: one picture a race is opened, all are weighed."""
    frames = frame_set.frames()
    firsts = {frame.race: frame.folder / frame.picture_name(0) for frame in frames if frame.view_count}
    sizes = Counter(decode_image(path).size for path in firsts.values())
    kinds = {"PNG" if path.suffix.lower() == ".png" else "JPEG" for path in firsts.values()}
    shown = f"{' and '.join(sorted(kinds))} of {' and '.join(cell(size) for size, _ in sizes.most_common())} px"
    weight = sum(
        path.stat().st_size
        for frame in frames
        for path in (frame.info_path, *(frame.folder / name for name in frame.picture_names))
    )
    odd = [size for size in sizes if abs(size[0] * BOX_FRAME[1] / (size[1] * BOX_FRAME[0]) - 1) > SAME_SHAPE]
    pressed = f" Not 3 to 2: {' and '.join(map(cell, odd))}; a model sees them pressed into that shape." if odd else ""
    views = sorted({frame.view_count for frame in frames})
    line_ups = sorted({len(frame.karts) for frame in frames})
    return (
        f"{shown}; {_span(views)} pictures a frame, "
        f"view `v` from behind kart `v`; {_span(line_ups)} karts in a race; {weight / 1e6:.1f} MB in all.{pressed}"
    )


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def _kept(frame_set: FrameSet) -> dict[str, Counter]:
    """{split: {number of karts that the course's rule keeps: pictures}}"""
    return {
        split: Counter(len(read_scene(view).karts) for view in frame_set.views(split)) for split in frame_set.splits
    }


def _in_view(kept: Mapping[str, Counter]) -> str:
    most = max((n for counter in kept.values() for n in counter), default=0)
    rows = [
        {"karts": n} | {split: share(counter[n], counter.total()) for split, counter in kept.items()}
        for n in range(most + 1)
    ]
    return table(rows, right=True)


def _line_ups(frame_set: FrameSet) -> list[str]:
    """A table a split, the first in sight, and how many of its (track, kart) pairs also occur in train."""
    parts = []
    in_train = track_kart_pairs(frame_set.splits.get("train", ()))
    karts = sorted(karts_of(frame_set.frames()))
    for split in frame_set.splits:
        counts, pairs = frame_set.line_ups(split), track_kart_pairs(frame_set.splits[split])
        rows = [
            {"track": track.replace("_", " ")} | {short: counter[kart] or "·" for kart, short in _short(karts).items()}
            for track, counter in counts.items()
        ]
        said = f"{split}: {len(pairs):,} of {len(counts) * len(karts):,} pairs of a track and a kart occur"
        if in_train and split not in ("train", FLAT_SPLIT):
            said += f"; {len(pairs & in_train):,} of them in train too"
        parts.append(f"**{said}**\n\n{table(rows, right=True)}" if not parts else folded(said, table(rows, right=True)))
    return parts


def _short(karts: Sequence[str]) -> dict[str, str]:
    """Headings that let a table of all karts fit a page: the first three letters, of the first and last word."""
    words = {kart: dict.fromkeys((kart.split("_")[0][:3], kart.split("_")[-1][:3])) for kart in karts}
    short = {kart: Formatted("<br>".join(map(escaped, parts))) for kart, parts in words.items()}
    return short if len(set(short.values())) == len(short) else {kart: kart for kart in karts}


def _source_text(source: Source, number: int) -> dict[str, Any]:
    """What the template says of a source."""
    name = escaped(source.root.resolve().name)
    text = {"kind": source.kind, "heading": "Source" if number == 1 else f"Source of {name}"}
    if source.kind != Kind.RENDERED:
        return text
    manifest, recipe, races = source.manifest, source.manifest["recipe"], source.manifest["races"]
    path = (source.root / MANIFEST).resolve()
    settings = {name: [part.get(name) for part in recipe.values()] for part in recipe.values() for name in part}
    return text | {
        "complete": manifest.get("complete", True),
        "settings": table(
            {"setting": SETTINGS.get(name, name)} | dict(zip(recipe, map(_setting, values), strict=True))
            for name, values in settings.items()
        ),
        "versions": escaped(", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())),
        "command": code(command) if (command := manifest.get("command", "")) else "",
        "manifest_path": path.relative_to(ROOT) if path.is_relative_to(ROOT) else f"{path.parent.name}/{MANIFEST}",
        "truth": code(manifest.get("truth_sha256", "not recorded")),
        "reasons": Counter(reason for race in races for reason in race.get("skipped", {}).values()),
        "skipped_on": Counter(race["track"] for race in races for _ in race.get("skipped", {})),
        "held": sum(len(race["frames"]) for race in races),
        "races": races,
    }


def _setting(value: Any) -> Any:
    """Lists of names by their length; the line-up tables give the names."""
    if value is None:
        return ""
    return len(value) if isinstance(value, list) and value and isinstance(value[0], str) else value


def _gaps(frame_set: FrameSet, sources: Sequence[Source], kept: Mapping[str, Counter]) -> list[str]:
    """What is missing, counted."""
    views = frame_set.views()
    empty = sum(counter[0] for counter in kept.values())
    lost = sum(all((d.class_id, d.object_id) != (KART_CLASS, view.index) for d in view.detections) for view in views)
    gaps = [
        *_absent_names(frame_set),
        f"In {share(empty, len(views))} of all pictures the course's rule keeps no kart and asks only for the track.",
        f"In {share(lost, len(views))} of all pictures the kart that the camera follows is not detected.",
    ]
    if {d.class_id for view in views for d in view.detections} == {KART_CLASS}:
        gaps.append("Only karts are detected (class 1), no items and no other objects.")
    if frame_set.skipped:
        gaps.append(f"{len(frame_set.skipped):,} broken frames of the folder are left out here.")
    for source in sources:
        recorded = source.manifest.get("frames", len(source.frames))
        if recorded != len(source.frames):
            gaps.append(f"`{MANIFEST}` records {recorded:,} frames, but {len(source.frames):,} are in the folder.")
    return gaps


def _absent_names(frame_set: FrameSet) -> list[str]:
    """Tracks and karts that no picture shows, and those that only other splits have."""
    gaps = []
    for what, asked, names in (("tracks", TRACKS, tracks_of), ("karts", KARTS, karts_of)):
        shown = names(frame_set.frames())
        if absent := sorted(set(asked) - shown):
            gaps.append(f"No picture shows the {what} {escaped(', '.join(absent))}, which questions may name.")
        for split, frames in frame_set.splits.items():
            if missing := sorted(shown - names(frames)):
                gaps.append(f"{split} has none of the {what} {escaped(', '.join(missing))}.")
    return gaps
