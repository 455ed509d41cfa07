"""Links into the explorer: its page opened at a picture and a question, from a gallery or a report.

    http://127.0.0.1:8866/?picture=test/800000_00_im.jpg&question=What track is this?

A browser that has opened the printed address once has its token; without it the page asks for it, and then goes on.
"""

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlencode

ADDRESS, PORT = "127.0.0.1", 8866


@dataclass(frozen=True)
class Place:
    """A picture, by its `image_file` or a part of it, and a question about it; empty: none in particular."""

    picture: str = ""
    question: str = ""


def query(place: Place, **more: str) -> str:
    """The query of the page's address, without the question mark."""
    values = {"picture": place.picture, "question": place.question, **more}
    return urlencode({name: value for name, value in values.items() if value}, quote_via=quote, safe="/")


def explorer_link(image_file: str, question: str = "", port: int = PORT) -> str:
    """The address of the explorer's page at this picture, with this question chosen; the page must be served."""
    return f"http://{ADDRESS}:{port}/?{query(Place(image_file, question))}"


def read_query(text: str) -> Place:
    """The place that a query names; what else it holds is left out."""
    values = parse_qs(text)
    return Place(*(values.get(name, [""])[0] for name in ("picture", "question")))
