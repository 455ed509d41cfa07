"""How a command ends: errors as one line, and the exit status that tells them apart."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stkvlm_lib.config import Failure
from stkvlm_lib.files import explain

FAILED, USAGE_ERROR, INTERRUPTED = 1, 2, 130
EXIT_STATUSES = (
    "Exit status: 0 done, 1 a step, a test or the system failed, 2 a wrong argument or file, 130 interrupted, "
    "143 ended by SIGTERM."
)


class Stopped(KeyboardInterrupt):
    """Asked by a signal to end (SIGTERM, or the terminal was closed), which is done as after Ctrl-C."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def ended(call: Callable[[], int | None]) -> int:
    """Call it -> its exit status, 0 where it gives none; what went wrong is said in one line. 128 + N: signal N."""
    try:
        with stopping_in_order():
            status = call()
            sys.stdout.flush()
        return status or 0
    except BrokenPipeError:  # who read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, ValueError, Failure) as error:
        of_system = isinstance(error, OSError) and error.errno is not None  # others have a message of this project
        print(f"error: {explain(error) if of_system else error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, ValueError | FileNotFoundError) else FAILED
    except ModuleNotFoundError as error:
        if (error.name or "stkvlm_lib").startswith("stkvlm_lib"):  # a fault of ours
            raise
        remedy = "./run_all.sh installs what is needed, or `pip install -e .` in an environment of your own"
        print(f"error: {sys.executable} has no package {error.name}; {remedy}", file=sys.stderr)
        return FAILED
    except Stopped as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def stopping_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise Stopped, so that what was begun is ended and tidied; those ignored stay so."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    changed = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])
