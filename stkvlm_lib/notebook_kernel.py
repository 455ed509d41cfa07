"""Notebooks run through papermill, in a kernel that is known while it runs and is ended with all its children."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stkvlm_lib.config import ROOT
from stkvlm_lib.files import write_text
from stkvlm_lib.installation import lead_to_this_library

CONNECTION_FILE = ".kernel-{}.json"
"""Where a kernel is told to listen, beside the executed notebook; {} is the pid of the pipeline."""
PATIENCE = 5.0
"""Seconds that an interrupted cell is given to leave nothing half done."""


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> str:
    """Run a notebook with its output on the terminal. Returns what went wrong, empty when nothing is known to.

    An interrupt ends the notebook's kernel and is passed on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".html").unlink(missing_ok=True)
    os.environ["STKVLM_HEADLESS"] = "1"
    lead_to_this_library()
    kernel = Kernel(target.parent / CONNECTION_FILE.format(os.getpid()))
    return kernel.run(lambda: _execute(source, target, parameters, kernel))


def _execute(source: Path, target: Path, parameters: dict[str, Any], kernel: "Kernel") -> str:
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            kernel_manager_class=kernel.manager_class(),
            cwd=ROOT,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own log; what cells say comes by message
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return f"Kernel died: {kernel.ended()}"
    except Exception as error:  # a kernel that does not start, a notebook that cannot be read, a full disk
        return f"{type(error).__name__}: {error}"
    return ""


def write_html(notebook: Path, page: Path) -> None:
    from nbconvert import HTMLExporter

    write_text(page, HTMLExporter().from_filename(str(notebook))[0])


class Kernel:
    """One kernel, started by papermill in a thread of its own, so that signals reach the main thread alone.

    file: its connection file, which goes away with it.
    """

    def __init__(self, file: Path):
        self.file = file
        self.process: subprocess.Popen | None = None
        self.unwanted = threading.Event()

    def manager_class(self) -> type:
        """The jupyter_client manager that starts the kernel and lets this object know its process."""
        from jupyter_client.manager import AsyncKernelManager

        kernel = self

        class Manager(AsyncKernelManager):
            def __init__(self, **settings):
                super().__init__(connection_file=str(kernel.file), **settings)

            async def start_kernel(self, **settings) -> None:
                await super().start_kernel(**settings)
                kernel.process = self.provisioner.process
                if kernel.unwanted.is_set():
                    kernel.kill()

        return Manager

    def run(self, work: Callable[[], str]) -> str:
        """What `work` returns, which runs a notebook with this kernel. An interrupt ends both and is passed on."""
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(work()), name="papermill", daemon=True)
        try:
            thread.start()
            thread.join()
        except BaseException:
            self._stop(thread)
            raise
        finally:
            self.file.unlink(missing_ok=True)
        return results[0] if results else "papermill ended early"

    def _stop(self, thread: threading.Thread) -> None:
        self.unwanted.set()
        try:
            if self.process:
                self.process.send_signal(signal.SIGINT)
            thread.join(PATIENCE)
        finally:
            self.kill()
            thread.join(PATIENCE)

    def kill(self) -> None:
        """End the kernel and what it has started (it leads a process group); nothing where it has ended."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)

    def ended(self) -> str:
        """How it ended: its exit status, or the signal and what that most likely means."""
        status = self.process.poll() if self.process else None
        if status == -signal.SIGKILL:
            import psutil

            free = psutil.virtual_memory().available / 1e9
            return (
                f"it was killed (signal 9), most likely because memory ran out: {free:.1f} GB are free now; end other "
                "programs, or lower BATCH_SIZE and EVAL_BATCH_SIZE"
            )
        if status is not None and status < 0:
            return f"by {signal.Signals(-status).name}"
        return f"exit status {status}"
