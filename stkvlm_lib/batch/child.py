"""A run of a batch as a process of its own: the command line as it is, ended when its batch is gone.

`python -m stkvlm_lib.batch.child BATCH_FOLDER PARENT run PROFILE ...`: the words after the pid of the process that
started it are those of `python -m stkvlm_lib`.
"""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from stkvlm_lib.batch.states import Pulse

PATIENCE = 60.0
"""Seconds without a sign of life after which a batch on another machine counts as gone."""


def end_with_batch(folder: Path, parent: int, every: float = 0.5) -> None:
    """Watch the batch from a thread; when it is gone, this process gets SIGTERM and ends as after `kill`."""

    def watch() -> None:
        pulse = Pulse(folder, PATIENCE)
        while os.getppid() == parent and pulse.is_there():
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch the batch", daemon=True).start()


def main() -> None:
    folder, parent, *words = sys.argv[1:]
    end_with_batch(Path(folder), int(parent))
    sys.argv = ["stkvlm", *words]
    runpy.run_module("stkvlm_lib", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
