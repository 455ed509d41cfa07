"""Work in worker processes through joblib: results in order, one by one, with progress.

The same results come out whatever the number of workers and wherever they run. joblib's own processes do the work on
one machine; inside `cluster(address)` the workers of a Dask cluster do.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from stkvlm_lib.config import Failure

T = TypeVar("T")


REACHED_WITHIN = 15
"""Seconds that a cluster is given to answer."""


class ClusterError(Failure):
    """A cluster that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Workers:
    """How many processes work at once, and whether they show their progress. One works in this process.

    threads: threads of this process in place of processes, for tasks that only wait for others.
    """

    n: int = 1
    quiet: bool = False
    threads: bool = False

    def run(self, task: Callable[..., T], arguments: Iterable[tuple], label: str, total: int) -> Iterator[T]:
        """`task(*given)` for each of the `total` arguments, yielded in order while later ones are being worked on."""
        from joblib import Parallel, delayed  # takes a moment to import, and most modules that end here never run it

        elsewhere = _elsewhere()
        if self.n == 1 and not elsewhere:
            results = (task(*given) for given in arguments)
        else:
            n = None if elsewhere else self.n  # a cluster says itself how many it has
            jobs = (delayed(task)(*given) for given in arguments)
            prefer = "threads" if self.threads else None
            results = Parallel(n_jobs=n, return_as="generator", pre_dispatch="2*n_jobs", prefer=prefer)(jobs)
        if self.quiet:
            return results
        from stkvlm_lib.progress import progress

        return iter(progress(results, label, total=total))


def _elsewhere() -> bool:
    """Whether the user has chosen a joblib backend whose workers are not this machine's own."""
    from joblib.parallel import get_active_backend

    return type(get_active_backend()[0]).__name__.startswith("Dask")


@contextmanager
def cluster(address: str, resource: str = "") -> Iterator[None]:
    """Have a Dask cluster do the work: by the address of its scheduler, `tcp://host:port`; without one, nothing.

    resource: what each task takes one of, as workers offer it (`dask worker ADDRESS --resources "GPU=1"`). Raises
    ClusterError where no scheduler answers, or where no worker offers the resource.
    """
    if not address:
        yield
        return
    from joblib import parallel_config

    try:
        from distributed import Client
    except ImportError:
        raise ClusterError('a cluster needs an optional install: pip install -e ".[cluster]"') from None
    try:
        client = Client(address, timeout=REACHED_WITHIN)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler at {address} ({error}); start one, or leave out the cluster") from None
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if resource and not any(worker["resources"].get(resource) for worker in workers):
            raise ClusterError(
                f"{address}: no worker offers the resource {resource}; start workers with "
                f'`dask worker {address} --resources "{resource}=1"`, one for each {resource}'
            )
        taken = {"resources": {resource: 1}} if resource else {}
        with parallel_config(backend="dask", n_jobs=-1, **taken):
            yield
