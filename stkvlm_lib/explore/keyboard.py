"""What the browser tells of keys, clicks and files, and what it is told beside the fields."""

from pathlib import Path

import anywidget
import traitlets


class Keys(anywidget.AnyWidget):
    """Arrow keys and letters for the whole explorer, clicks on questions, and the picture's alternative text.

    Sends {"action": ..}: `previous`, `next`, `random`, `overlay`, `large`, `ask`; `choose` and `submit` with a
    "question"; `open` with a "picture" and a "question"; `own` with a "name" and the bytes of a picture's file. Takes
    {"file": name} with the bytes of a file to save. done: how many actions were done, so that a key held down waits for
    the picture. query: of the page's address, to come back to.
    """

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    alt = traitlets.Unicode().tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    done = traitlets.Int().tag(sync=True)
