"""The explorer's page served by a process of its own, and its settings apart from the user's."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stkvlm_lib.config import ROOT

PATIENCE_S = int(os.environ.get("STKVLM_PATIENCE") or 180)
"""Seconds to wait for any one thing; a machine that trains besides may need more than these three minutes."""


def own_environment(home: Path) -> dict[str, str]:
    """No settings of the user, and no question about Jupyter's news."""
    settings = home / "lab" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    own = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "run",
    }
    own |= {"JUPYTERLAB_SETTINGS_DIR": home / "lab", "PYTHONPATH": ROOT, "JUPYTER_PREFER_ENV_PATH": 1}
    own |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": 1}
    own |= {"OMP_WAIT_POLICY": "passive"}  # on a busy machine waiting threads would take the time of working ones
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


@contextmanager
def served(run: Path, environment: dict[str, str], log: Path | None = None) -> Iterator[str]:
    """The address that `explore` prints. log: a file for what the server complains of."""
    command = [sys.executable, "-P", "-m", "stkvlm_lib", "explore", str(run), "--port", str(free_port())]
    complaints = log.open("w") if log else None
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True)
    try:
        printed = (re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line) for line in server.stdout)
        found = next(filter(None, printed), None)
        assert found, "the server has ended without printing an address; its messages are above"
        yield found.group()
    finally:
        server.terminate()
        end(server)
        if complaints:
            complaints.close()


def end(server: subprocess.Popen) -> None:
    """Wait for a server that was told to end; one that takes minutes over it is killed."""
    try:
        server.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
