"""The folder into which a set is rendered: what it holds, what was skipped, and its manifest.

A frame is held when its info file is there, which is written after its pictures. Skipped frames lie with their reasons
in `.races/` until the manifest has them.
"""

import hashlib
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stkvlm_lib.config import Failure
from stkvlm_lib.data.frames import FLAT_SPLIT, INFO_SUFFIX, VIEW_NAME
from stkvlm_lib.files import write_json
from stkvlm_lib.game.race_plans import PlanError, PlannedRace, Recipes, as_json, read_recipes
from stkvlm_lib.game.race_process import remove_frame
from stkvlm_lib.typed import read_file

MANIFEST = "manifest.json"
_STATE = ".races"
_LOCK = ".rendering"


class CollectError(Failure):
    """A set that cannot be rendered or gone on with; the message says why and what to do."""


@dataclass(frozen=True)
class RecordedRace:
    number: str
    skipped: dict[int, str]


@dataclass(frozen=True)
class Recorded:
    """What a manifest says of how its set was begun, and of what was skipped."""

    races: list[RecordedRace]
    recipe: Any = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, dict[int, str]]:
        return {race.number: race.skipped for race in self.races}


@dataclass
class RenderFolder:
    """held: race number -> frames; skipped: race number -> {frame: why}."""

    root: Path
    recipes: Recipes
    races: list[PlannedRace]
    versions: dict[str, str]
    held: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    skipped: dict[int, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it for this process; the lock goes with the process, however it ends."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise CollectError(f"{self.root}: is not a folder; name another") from None
        try:
            lock = FileLock(self.root / _LOCK, blocking=False).acquire()
        except Timeout:
            raise CollectError(f"{self.root}: another process is rendering into it; wait for it, or stop it") from None
        with lock:
            yield
            (self.root / _LOCK).unlink(missing_ok=True)

    def begin(self) -> None:
        """Start the manifest, or see that the folder was begun with the same recipe and versions (CollectError)."""
        if not (self.root / MANIFEST).exists():
            if any(path.name != _LOCK for path in self.root.iterdir()):
                raise CollectError(f"{self.root}: is not empty and has no {MANIFEST}; choose an empty or new folder")
            self.write_manifest()
            return
        found = read_file(self.root / MANIFEST, Recorded, "choose a new folder")
        if changes := self._differences(found):
            raise CollectError(
                f"{self.root}: was begun with another recipe ({changes}); give the same again to go on, or a new folder"
            )
        before = found.versions
        changed = [
            f"{name} {before[name]}, now {now}" for name, now in self.versions.items() if before.get(name, now) != now
        ]
        if changed:
            raise CollectError(
                f"{self.root}: was begun with other versions ({'; '.join(changed)}); choose a new folder"
            )

    def look(self, replay: str | Path | None = None, retry: bool = False) -> None:
        """Find out what is held and skipped; pictures of frames without info are removed.

        replay: the manifest of another run, whose skips are repeated. retry: forget all other skips.
        """
        self.held.clear()
        self.skipped.clear()
        for split in self.recipes:
            folder = self.of(split)
            folder.mkdir(exist_ok=True)
            names = [name for name in os.listdir(folder) if not name.startswith(".") or name.endswith(".part")]
            infos = {name.removesuffix(INFO_SUFFIX) for name in names if name.endswith(INFO_SUFFIX)}
            for frame_id in infos:
                self.held[int(frame_id[:4], 16)].add(int(frame_id[4:], 16))
            for name in names:
                match = VIEW_NAME.match(name)
                if name.endswith(".part") or (match and match["frame"] not in infos):
                    (folder / name).unlink(missing_ok=True)
        if retry:
            self.forget_skips()
        else:
            self._read_skips()
        if replay:
            self._replay(Path(replay))

    def _read_skips(self) -> None:
        recorded = read_file(self.root / MANIFEST, Recorded).skipped
        for race in self.races:
            state = self.state(race)
            lately = read_file(state, dict[int, str], "remove it") if state.is_file() else {}
            for frame, reason in (recorded.get(race.id, {}) | lately).items():
                if frame not in self.held[race.number]:
                    self.skipped[race.number][frame] = reason

    def forget_skips(self) -> None:
        """From now on only what the manifest says counts as skipped."""
        shutil.rmtree(self.root / _STATE, ignore_errors=True)

    def _replay(self, manifest: Path) -> None:
        """Skip what another run of the same recipe has skipped; remove it where it is held. Raises CollectError."""
        other = read_file(manifest, Recorded, "give the manifest.json of a rendered set")
        if changes := self._differences(other):
            raise CollectError(f"{manifest}: is of another recipe ({changes}); replay it with its own")
        for race in self.races:
            for frame, reason in other.skipped.get(race.id, {}).items():
                self.skipped[race.number][frame] = reason
                self.held[race.number].discard(frame)
                remove_frame(self.of(race.split), race.frame_id(frame))

    def of(self, split: str) -> Path:
        return self.root if split == FLAT_SPLIT else self.root / split

    def state(self, race: PlannedRace) -> Path:
        """The file in which a race's skips are kept while it is rendered: {frame: why}."""
        return self.root / _STATE / f"{race.id}.json"

    def is_done(self, race: PlannedRace) -> bool:
        return len(self.held[race.number]) + len(self.skipped[race.number]) >= race.plan.frames

    def write_manifest(self) -> dict[str, Any]:
        """Recipe, versions, every race, and hashes of the truth: of info files in the order of their ids."""
        overall, rows = hashlib.sha256(), []
        for race in self.races:
            own = hashlib.sha256()
            for frame in sorted(self.held[race.number]):
                truth = (self.of(race.split) / f"{race.frame_id(frame)}{INFO_SUFFIX}").read_bytes()
                own.update(truth)
                overall.update(truth)
            rows.append(
                {
                    "number": race.id,
                    "split": race.split,
                    "seed": race.plan.seed,
                    "track": race.plan.track,
                    "reverse": race.plan.reverse,
                    "karts": list(race.plan.karts),
                    "frames": sorted(self.held[race.number]),
                    "skipped": {str(frame): why for frame, why in sorted(self.skipped[race.number].items())},
                    "truth_sha256": own.hexdigest(),
                }
            )
        manifest = {
            "recipe": as_json(self.recipes),
            "versions": self.versions,
            "complete": all(self.is_done(race) for race in self.races),
            "images": sum(len(self.held[race.number]) * race.plan.views for race in self.races),
            "frames": sum(len(frames) for frames in self.held.values()),
            "skipped_frames": sum(len(frames) for frames in self.skipped.values()),
            "truth_sha256": overall.hexdigest(),
            "races": rows,
        }
        write_json(self.root / MANIFEST, manifest)
        return manifest

    def _differences(self, manifest: Recorded) -> str:
        """What a manifest's recipe has otherwise; settings that it does not name have their defaults."""
        try:
            before = as_json(read_recipes(manifest.recipe))
        except PlanError as error:
            return str(error)
        now = as_json(self.recipes)
        if set(before) != set(now):
            return f"splits {', '.join(before)}, now {', '.join(now)}"
        return "; ".join(
            f"{split}: {name}={before[split][name]!r}, now {value!r}"
            for split in now
            for name, value in now[split].items()
            if before[split][name] != value
        )


def package_version(package: str) -> str:
    """The version of an installed Debian package, empty where there is none."""
    try:
        found = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    except OSError:
        return ""
    return found.stdout.strip()
