"""What a figure says."""

from matplotlib.figure import Figure


def texts(figure: Figure) -> str:
    """All that is visible, tick labels included."""
    figure.draw_without_rendering()
    found = figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible())
    return "\n".join(text.get_text() for text in found)
