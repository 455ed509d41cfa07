"""How large each kart of SuperTuxKart 1.4 is drawn, driver and wheels included.

The game's own sizes leave out wheels and some drivers, so they were measured from depth, which repeats to 2 cm: the
points that go when a lone kart is hidden (see `pystk_adapter.draw`), at five moments of its drive, from eight
directions and two heights, 3 m away. 0.05 % at each end of an axis are strays; the median of the moments counts.
"""

from stkvlm_lib.game.view_truth import Extent

EXTENTS = {
    "adiumy": Extent((-0.50, -0.02, -0.44), (0.48, 0.82, 0.51)),
    "amanda": Extent((-0.56, -0.06, -0.71), (0.56, 0.85, 0.76)),
    "emule": Extent((-0.40, 0.00, -0.60), (0.39, 0.77, 0.69)),
    "gavroche": Extent((-0.42, -0.03, -0.58), (0.41, 0.68, 0.69)),
    "gnu": Extent((-0.39, 0.23, -0.67), (0.39, 1.18, 0.68)),
    "kiki": Extent((-0.43, -0.02, -0.63), (0.43, 1.04, 0.58)),
    "konqi": Extent((-0.52, 0.02, -0.77), (0.51, 0.87, 0.81)),
    "nolok": Extent((-0.41, -0.01, -0.68), (0.40, 0.68, 0.72)),
    "pidgin": Extent((-0.49, 0.02, -0.66), (0.50, 0.65, 0.58)),
    "puffy": Extent((-0.55, -0.04, -0.78), (0.55, 0.68, 0.79)),
    "sara_the_racer": Extent((-0.23, 0.06, -0.68), (0.23, 1.04, 0.47)),
    "sara_the_wizard": Extent((-0.36, 0.02, -0.66), (0.38, 0.96, 0.59)),
    "suzanne": Extent((-0.51, -0.04, -0.71), (0.50, 0.72, 0.70)),
    "tux": Extent((-0.48, -0.03, -0.70), (0.48, 0.75, 0.74)),
    "wilber": Extent((-0.51, 0.01, -0.84), (0.48, 0.92, 0.87)),
    "xue": Extent((-0.50, 0.02, -0.67), (0.50, 0.95, 0.77)),
}
"""Kart name to its extent in metres."""
