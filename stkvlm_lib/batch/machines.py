"""Where the runs of a batch work: on this machine's cores, one on each of its GPUs, or on a Dask cluster."""

import os
from dataclasses import dataclass
from itertools import cycle, islice

from stkvlm_lib.config import ConfigError
from stkvlm_lib.runs import cores

GPU = "GPU"
"""The Dask resource of which a run takes one."""


@dataclass(frozen=True)
class Machines:
    """at_once: how many runs work at the same time on this machine. gpus: as CUDA_VISIBLE_DEVICES names them, each of
    which runs take in turn. cluster: the address of a Dask scheduler whose workers do it instead."""

    at_once: int = 1
    gpus: tuple[str, ...] = ()
    cluster: str = ""

    def places(self) -> list[str]:
        """The GPU of each run that works at the same time: all in turn; none where there are none to give out."""
        return list(islice(cycle(self.gpus), self.at_once))

    def environment(self, gpu: str) -> dict[str, str]:
        """What a run's process finds in its environment besides."""
        if gpu:
            return {"CUDA_VISIBLE_DEVICES": gpu}
        if self.cluster or self.at_once == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, cores() // self.at_once))}


def choose_machines(at_once: int = 0, gpus: str = "", cluster: str = "") -> Machines:
    """What flags ask for: at_once 0 is one run a GPU, or one without; gpus "" is all there are, e.g. "0,1".

    Raises ConfigError for a GPU that is not there, and for wishes that exclude each other.
    """
    if cluster and (gpus or at_once):
        raise ConfigError("--cluster leaves to its workers which GPU and how many at once; leave out --gpus, --at-once")
    if cluster:
        return Machines(cluster=cluster)
    there = gpus_here()
    wanted = tuple(part.strip() for part in gpus.split(",")) if gpus else there
    for gpu in wanted:
        if gpu not in there:
            has = f"there are {', '.join(there)}" if there else "this machine has none; leave out --gpus"
            raise ConfigError(f"--gpus {gpus}: there is no GPU {gpu!r}; {has}")
    return Machines(at_once or max(1, len(wanted)), wanted)


def gpus_here() -> tuple[str, ...]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    n = torch.cuda.device_count()
    return tuple(named[:n]) if len(named) >= n > 0 else tuple(map(str, range(n)))
