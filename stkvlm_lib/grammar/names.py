"""The closed sets of names that questions are about: karts and tracks, exactly as info files write them."""

KARTS = [
    *("adiumy", "amanda", "beastie", "emule", "gavroche", "gnu", "hexley", "kiki", "konqi", "nolok", "pidgin", "puffy"),
    *("sara_the_racer", "sara_the_wizard", "suzanne", "tux", "wilber", "xue"),
]
"""The 18 karts of the course; the game itself has all but beastie and hexley."""
COURSE_ONLY_KARTS = ("beastie", "hexley")
"""Karts that no frame rendered from the game can show."""
TRACKS = [
    *("abyss", "black_forest", "candela_city", "cocoa_temple", "cornfield_crossing", "fortmagma"),
    *("gran_paradiso_island", "hacienda", "lighthouse", "mines", "minigolf", "olivermath", "overworld"),
    *("ravenbridge_mansion", "sandtrack", "scotland", "snowmountain", "snowtuxpeak", "stk_enterprise", "tutorial"),
    *("volcano_island", "xr591", "zengarden"),
]
"""The union of the course's 21 tracks and the game's (mines, stk_enterprise)."""
