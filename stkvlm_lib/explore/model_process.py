"""The one process that answers for all pages of an explorer's server; each adapter is loaded when it is first asked.

    python -m stkvlm_lib.explore.model_process DESCRIPTOR

DESCRIPTOR: of a listening socket that the server has made (see `model_host`). A connection brings one request, a line
of JSON, and takes one line: {"value": ...} or {"error": text}. One after the other is answered in the order in which
they came, so no page waits for two of another's. It ends with the server, whose end closes its standard input.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from functools import cache, partial
from pathlib import Path
from typing import Any

from stkvlm_lib.explore.models import AskError, OwnModel, load_model

CALLS = ("prepare", "put", "answer", "cover")
"""Methods of OwnModel that a request may name."""
LONGEST_REQUEST = 100_000
"""Bytes; a page's are much shorter."""
PATIENCE = 10.0
"""Seconds that a connection is given to say what it wants, while all others wait."""


def main(descriptor: int) -> None:
    threading.Thread(target=_end_with_server, daemon=True).start()
    serve(socket.socket(fileno=descriptor))


def _end_with_server() -> None:
    """Wait for the other end of the standard input to be closed, by the server or by its end."""
    sys.stdin.buffer.read()
    os._exit(0)  # sys.exit would end this thread alone, while the main one still answers


def serve(listener: socket.socket, load: Callable[[Path, str], Any] = load_model) -> None:
    """Answer one connection after another, for ever."""

    @cache
    def model_of(adapter: str, base: str) -> OwnModel:
        return OwnModel(partial(load, Path(adapter), base))

    while True:
        channel, _ = listener.accept()
        with channel, suppress(OSError):  # a page may be gone by now
            channel.settimeout(PATIENCE)
            line = channel.makefile("rb").readline(LONGEST_REQUEST)
            if line.endswith(b"\n"):
                channel.sendall(json.dumps(reply_to(line, model_of), default=astuple).encode() + b"\n")


def reply_to(line: bytes, model_of: Callable[[str, str], OwnModel]) -> dict:
    """What goes back for a request; whatever goes wrong is told there, as nobody else would see it."""
    try:
        request = json.loads(line)
        return {"value": _call(model_of(request["adapter"], request["base"]), request)}
    except AskError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"The model could not answer. {type(error).__name__}: {error}"}


def _call(model: OwnModel, request: dict) -> Any:
    """What a request asks of a model."""
    if request["call"] not in CALLS:
        raise ValueError(f"no call {request['call']!r}")
    if request["call"] == "prepare":
        return model.prepare()
    return getattr(model, request["call"])(Path(request["picture"]), request["question"], **request["more"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
