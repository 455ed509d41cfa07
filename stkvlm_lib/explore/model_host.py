"""The process that answers for all pages, as the server sees it: started at a question, and again after its end."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from select import select

from tornado.ioloop import IOLoop

WAITING = 64
"""How many questions may wait."""
PATIENCE = 5.0
"""Seconds that the process is given to end."""


class ModelHost:
    """A socket for questions, and the process that takes them while there is one.

    folder: the socket's, which nobody else may enter. As long as no process runs, the first question that waits at the
    socket starts one. Where it ends by itself, the questions that wait are told so, and the next one starts another.
    """

    def __init__(self, folder: Path):
        self.address = folder / "model"
        self.process: subprocess.Popen | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.address))
        self._listener.listen(WAITING)
        self._stopped = False

    def watch(self) -> None:
        """Wait for a question, in the loop of this thread."""
        IOLoop.current().add_handler(self._listener, lambda *_: self._start(), IOLoop.READ)

    def _start(self) -> None:
        loop = IOLoop.current()
        loop.remove_handler(self._listener)
        descriptor = self._listener.fileno()
        command = [sys.executable, "-P", "-m", "stkvlm_lib.explore.model_process", str(descriptor)]
        started = {"stdin": subprocess.PIPE, "pass_fds": [descriptor], "start_new_session": True}
        self.process = subprocess.Popen(command, **started)
        threading.Thread(target=self._wait, args=(self.process, loop), daemon=True).start()

    def _wait(self, process: subprocess.Popen, loop: IOLoop) -> None:
        process.wait()
        with suppress(RuntimeError):  # the loop has ended before it
            loop.add_callback(self._ended)

    def _ended(self) -> None:
        if self._stopped:
            return
        while select([self._listener], [], [], 0)[0]:  # hung up on, they know that it has ended
            self._listener.accept()[0].close()
        self.watch()

    def close(self) -> None:
        """End the process, and take no more questions."""
        self._stopped = True
        self._listener.close()
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
