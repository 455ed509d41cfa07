"""benchmarks/features_memory.py: that what it measures is the memory of many pictures."""

import importlib.util

import pytest

from stkvlm_lib.config import ROOT


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("features_memory", ROOT / "benchmarks" / "features_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_pictures(benchmark):
    """Both fill what waits to be written, 64 MB."""
    few, many = (benchmark.in_own_process(n, packed=10, keep=None) for n in (20_000, 40_000))
    assert many["on disk, MB"] - few["on disk, MB"] > 80
    assert many["peak memory, MB"] - few["peak memory, MB"] < 40


def test_the_reckoning_goes_on_from_the_largest(benchmark):
    rows = [{"pictures": n, "peak memory, MB": mb} for n, mb in ((1_000_000, 500), (2_000_000, 700))]
    told = benchmark.reckoning(rows, 10**7)
    assert "measured +200 MB" in told and "200 bytes a picture, 10,000,000 pictures of SmolVLM-256M take 2.3 GB" in told
    rows[1]["peak memory, MB"] = 490
    assert "128 bytes a picture" in benchmark.reckoning(rows, 10**7)
