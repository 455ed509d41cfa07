"""The process that answers for all pages, as the server sees it: started at a question, and again after its end."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from select import select

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
        self._closed = False
        threading.Thread(target=self._run_processes, daemon=True).start()

    def _run_processes(self) -> None:
        try:
            self._start_and_wait()
        except OSError:
            if not self._closed:  # else the socket was closed in the middle of a wait
                raise

    def _start_and_wait(self) -> None:
        descriptor = self._listener.fileno()
        command = [sys.executable, "-P", "-m", "stkvlm_lib.explore.model_process", str(descriptor)]
        started = {"stdin": subprocess.PIPE, "pass_fds": [descriptor], "start_new_session": True}
        while not self._closed:
            select([descriptor], [], [])
            if self._closed:
                return
            self.process = subprocess.Popen(command, **started)
            self.process.wait()
            # who waits is hung up on: a process that dies at its start would else be started again without end
            while not self._closed and select([descriptor], [], [], 0)[0]:
                self._listener.accept()[0].close()

    def close(self) -> None:
        """End the process, and take no more questions."""
        self._closed = True
        if self.process:  # first, as it would complain of a socket that is shut
            self.process.stdin.close()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with suppress(OSError):  # on Linux this ends the wait for questions; elsewhere it may be refused
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.address.unlink(missing_ok=True)
