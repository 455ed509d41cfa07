"""Where each kart is in a view, from the camera, the pose of every kart and two depth pictures.

The two pictures show the same moment with and without karts: a pixel whose depth differs is a kart's pixel, whatever
ground or wall stands beside it. Which kart's, the point in space behind the pixel tells: the one in whose extent it
lies (the nearest where extents overlap). Row vectors throughout: clip = [x y z 1] @ view @ projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stkvlm_lib.data.frames import BOX_FRAME

LEAST_PIXELS = 6
"""A kart with fewer visible pixels of the drawn picture counts as hidden; a sliver of a near kart does not."""
SLACK_LOW, SLACK_HIGH = (0.12, 0.30, 0.12), (0.12, 0.12, 0.12)
"""Metres that a part may leave the measured extent by, to each side: wheels steer, and hang on springs in a jump."""
COVER_AHEAD = 0.2
"""Metres in front of an extent from which on something covers it; the ground under its edges does not."""
USUAL_FILL, FILL_WEIGHT = 0.45, 12
"""Share of its projected extent that a kart fills, and how many pixels of evidence that guess is worth."""


@dataclass(frozen=True)
class Extent:
    """A kart's box in its own coordinates, metres: x right, y up, z forwards from the model's origin."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass(frozen=True)
class KartInView:
    """One kart in one view. `box`: ints in the 600x400 frame around its visible pixels (None without any)."""

    kart: int
    box: tuple[int, int, int, int] | None
    box_raw: tuple[float, float, float, float]
    visible: float
    pixels: int
    distance: float
    in_image: float

    @property
    def is_hidden(self) -> bool:
        return self.box is None or self.pixels < LEAST_PIXELS


def see_karts(
    view: np.ndarray,
    projection: np.ndarray,
    poses: Sequence[np.ndarray],
    extents: Sequence[Extent],
    depth: np.ndarray,
    depth_without_karts: np.ndarray,
) -> list[KartInView]:
    """Every kart whose extent projects into the picture, by kart id.

    `view`, `projection` and each of `poses`: 4x4 for row vectors. The depths: (H, W) in 0..1 as OpenGL stores them.
    """
    height, width = depth.shape
    metres = view_depth(depth, projection)
    owner = np.full(depth.shape, -1, dtype=np.int16)
    closeness = np.full(depth.shape, np.inf, dtype=np.float32)
    candidates = []
    for kart, (pose, extent) in enumerate(zip(poses, extents, strict=True)):
        reach = Extent(tuple(np.subtract(extent.low, SLACK_LOW)), tuple(np.add(extent.high, SLACK_HIGH)))
        raw, widest = (project_extent(view, projection, pose, box) for box in (extent, reach))
        crop = _crop(widest, width, height) if widest else None
        if raw is None or crop is None:
            continue
        rays, origin = _rays_in_kart(view, projection, pose, crop, width, height)
        x1, y1, x2, y2 = crop
        part = np.s_[y1:y2, x1:x2]
        rows, columns = np.nonzero(depth[part] < depth_without_karts[part])
        away = _away(origin + rays[rows, columns] * metres[part][rows, columns][:, None], reach)
        better = away < closeness[part][rows, columns]
        owner[part][rows[better], columns[better]] = kart
        closeness[part][rows[better], columns[better]] = away[better]
        candidates.append((kart, raw, crop, rays, origin))
    seen = []
    for kart, raw, (x1, y1, x2, y2), rays, origin in candidates:  # only now each pixel has its last owner
        own, extent = owner[y1:y2, x1:x2] == kart, extents[kart]
        centre = np.append((np.array(extent.low) + np.array(extent.high)) / 2, 1.0) @ poses[kart] @ view
        seen.append(
            KartInView(
                kart=kart,
                box=box_of_pixels(own, x1, y1, width, height),
                box_raw=raw,
                visible=_visible_share(own, rays, origin, extent, metres[y1:y2, x1:x2]),
                pixels=int(own.sum()),
                distance=float(np.linalg.norm(centre[:3])),
                in_image=share_in_image(raw),
            )
        )
    return seen


def view_depth(depth: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Metres along the view's axis for each pixel, from OpenGL's depth (0..1). (H, W)"""
    return projection[3, 2] / ((2.0 * depth.astype(np.float64) - 1.0) - projection[2, 2])


def project_extent(
    view: np.ndarray, projection: np.ndarray, pose: np.ndarray, extent: Extent
) -> tuple[float, float, float, float] | None:
    """The float box (x1, y1, x2, y2) of an extent in the 600x400 frame, unclipped; None when it is behind the camera.

    Edges that cross the near plane are cut there.
    """
    low, high = np.array(extent.low), np.array(extent.high)
    corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] = low + corners[:, :3] * (high - low)
    seen = corners @ pose @ view
    near = view_depth(np.zeros(1), projection)[0]  # where drawing begins: depth 0
    points = list(seen[seen[:, 2] >= near])
    for a in range(8):
        for b in (a | 1, a | 2, a | 4):
            if b != a and (seen[a, 2] - near) * (seen[b, 2] - near) < 0:
                points.append(seen[a] + (near - seen[a, 2]) / (seen[b, 2] - seen[a, 2]) * (seen[b] - seen[a]))
    if not points:
        return None
    clip = np.array(points) @ projection
    x = (clip[:, 0] / clip[:, 3] + 1) / 2 * BOX_FRAME[0]
    y = (1 - clip[:, 1] / clip[:, 3]) / 2 * BOX_FRAME[1]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def box_of_pixels(own: np.ndarray, left: int, top: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The box in the 600x400 frame around a mask's pixels, the last column and row included; None for an empty mask.

    `own`: (h, w) bool, a crop whose first pixel is (left, top) of a picture of width x height. A pixel without a
    neighbour in the mask does not count.
    """
    padded = np.pad(own, 1)
    beside = padded[:, :-2] | padded[:, 2:]
    around = beside[:-2] | beside[1:-1] | beside[2:] | padded[:-2, 1:-1] | padded[2:, 1:-1]
    own = own & around
    columns, rows = np.flatnonzero(own.any(axis=0)), np.flatnonzero(own.any(axis=1))
    if not len(columns):
        return None
    across, down = BOX_FRAME[0] / width, BOX_FRAME[1] / height
    return (
        int((left + columns[0]) * across),
        int((top + rows[0]) * down),
        min(int(np.ceil((left + columns[-1] + 1) * across)), BOX_FRAME[0]) - 1,
        min(int(np.ceil((top + rows[-1] + 1) * down)), BOX_FRAME[1]) - 1,
    )


def share_in_image(box: Sequence[float]) -> float:
    """Share of a float box that lies inside the 600x400 frame."""
    across = max(0.0, min(box[2], BOX_FRAME[0]) - max(box[0], 0.0))
    down = max(0.0, min(box[3], BOX_FRAME[1]) - max(box[1], 0.0))
    return across * down / max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)


def _crop(raw: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """The pixels (x1, y1, x2, y2; ends excluded) of a picture that a float box touches, one more on each side."""
    across, down = width / BOX_FRAME[0], height / BOX_FRAME[1]
    x1, x2 = max(int(np.floor(raw[0] * across)) - 1, 0), min(int(np.ceil(raw[2] * across)) + 1, width)
    y1, y2 = max(int(np.floor(raw[1] * down)) - 1, 0), min(int(np.ceil(raw[3] * down)) + 1, height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _rays_in_kart(
    view: np.ndarray,
    projection: np.ndarray,
    pose: np.ndarray,
    crop: tuple[int, int, int, int],
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A crop's rays in a kart's coordinates: (h, w, 3) directions, one metre of view depth long, and their origin."""
    x1, y1, x2, y2 = crop
    across = ((np.arange(x1, x2) + 0.5) / width * 2 - 1) / projection[0, 0]
    down = (1 - (np.arange(y1, y2) + 0.5) / height * 2) / projection[1, 1]
    to_kart = np.linalg.inv(pose @ view)
    rays = across[None, :, None] * to_kart[0, :3] + down[:, None, None] * to_kart[1, :3] + to_kart[2, :3]
    return rays, to_kart[3, :3]


def _away(points: np.ndarray, extent: Extent) -> np.ndarray:
    """How far points (n, 3) are from an extent's centre, in halves of its sides; infinite outside of it."""
    low, high = np.array(extent.low), np.array(extent.high)
    offsets = (points - (low + high) / 2) / ((high - low) / 2)
    return np.where((np.abs(offsets) <= 1).all(axis=1), np.linalg.norm(offsets, axis=1), np.inf)


def _visible_share(own: np.ndarray, rays: np.ndarray, origin: np.ndarray, extent: Extent, metres: np.ndarray) -> float:
    """Share of a kart's pixels in the picture that nothing nearer covers.

    What is covered cannot be seen, so its part of the kart is estimated: as many of the covered pixels of the projected
    extent as the kart fills of the uncovered ones.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (np.array(extent.low) - origin) / rays, (np.array(extent.high) - origin) / rays
    enter, leave = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
    inside = (enter <= leave) & (leave > 0)
    count = int(own.sum())
    is_covered = metres < enter - COVER_AHEAD
    covered = int((inside & ~own & is_covered).sum())
    behind = int((inside & ~own & ~is_covered).sum())
    fill = (count + USUAL_FILL * FILL_WEIGHT) / (count + behind + FILL_WEIGHT)
    return count / max(count + covered * fill, 1e-9) if count else 0.0
