import os
import warnings

import pytest

from stkvlm_lib import parallel
from stkvlm_lib.parallel import ClusterError, Workers, cluster


def square(number):
    return number**2, os.getpid()


def fail(number):
    raise ValueError(f"cannot do {number}")


@pytest.mark.parametrize("n", [1, 2])
def test_results_come_in_order_and_from_as_many_processes_as_asked(n):
    results = list(Workers(n, quiet=True).run(square, ((i,) for i in range(20)), "squares", 20))
    assert [value for value, _ in results] == [i**2 for i in range(20)]
    assert ({process for _, process in results} == {os.getpid()}) == (n == 1)


@pytest.mark.parametrize("n", [1, 2])
def test_what_a_worker_raises_is_raised_here(n):
    with pytest.raises(ValueError, match="cannot do 3"):
        list(Workers(n, quiet=True).run(fail, [(3,)], "failures", 1))


def test_one_worker_takes_no_more_arguments_than_are_asked_for():
    taken = []
    results = Workers(quiet=True).run(square, ((taken.append(i) or i,) for i in range(10)), "squares", 10)
    assert next(results)[0] == 0 and taken == [0]


def test_progress_is_shown_unless_it_is_to_be_quiet(monkeypatch, capsys):
    monkeypatch.setenv("STKVLM_HEADLESS", "1")
    list(Workers().run(square, [(1,), (2,)], "squares", 2))
    assert capsys.readouterr().out == "squares: 2 of 2 batches, about 0 s left\n"


def test_inside_a_cluster_its_workers_do_the_work():
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (  # two: where a cluster has one thread in all, joblib works in this process
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
            cluster(local.scheduler_address),
        ):
            results = list(Workers(quiet=True).run(square, [(i,) for i in range(20)], "squares", 20))
    assert [value for value, _ in results] == [i**2 for i in range(20)]
    assert os.getpid() not in {process for _, process in results}


def test_a_cluster_says_itself_how_many_workers_it_has(monkeypatch):
    asked = []

    def recorded(**settings):
        asked.append(settings["n_jobs"])
        return lambda jobs: iter(())

    monkeypatch.setattr("joblib.Parallel", recorded)
    list(Workers(3, quiet=True).run(square, [(1,)], "squares", 1))
    monkeypatch.setattr(parallel, "_elsewhere", lambda: True)
    list(Workers(3, quiet=True).run(square, [(1,)], "squares", 1))
    assert asked == [3, None]


def test_without_an_address_there_is_no_cluster_and_a_wrong_one_is_named():
    with cluster(""):
        assert list(Workers(quiet=True).run(square, [(2,)], "squares", 1)) == [(4, os.getpid())]
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with pytest.raises(ClusterError, match="tcp://nowhere"), cluster("tcp://nowhere"):
        pass
