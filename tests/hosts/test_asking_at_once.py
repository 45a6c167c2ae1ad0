"""Machines that ask for trials at once, without a folder in common."""

import multiprocessing
from collections import Counter
from functools import partial

import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from storage_servers import postgres, serving_storage

from hawsweep.machine.processes import identity
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import check_sweep
from hawsweep.study.confirm import load_confirmation, open_confirmation
from hawsweep.study.leases import register_of, turn
from hawsweep.study.place import Place
from hawsweep.study.queue import ask
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study

N_HOSTS = 8
SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "trials": 6,
        "search": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8, 16]},
        },
    },
    "a sweep",
)


def ask_once(folder, url, n_trials, at_once, numbers, at_end):
    place = Place(folder, url)
    place.study_dir("s").mkdir(parents=True, exist_ok=True)
    storage = open_storage(place)
    study, confirming = load_study(storage, "s"), load_confirmation(storage, "s", SPEC)
    at_once.wait()
    number = ask(
        study,
        partial(make_sampler, SPEC),
        distributions(SPEC.search),
        place.study_dir("s"),
        identity(),
        n_trials,
        turns=turn(confirming, register_of(place)),
    )
    numbers.put(number)
    at_end.wait()  # a process that has ended runs nothing


@pytest.fixture(params=["by a proxy", "PostgreSQL"])
def url(request, tmp_path):
    if request.param == "PostgreSQL":
        with postgres() as server:
            yield server.url
        return
    place = Place(tmp_path / "starter")
    open_storage(place, create=True)
    with serving_storage(place.url) as served:
        yield served


@pytest.mark.parametrize(("n_trials", "n_begun"), [(20, N_HOSTS), (SPEC.trials, SPEC.trials)])
def test_hosts_that_ask_at_once_get_different_settings_and_no_more_than_asked(
    url, tmp_path, n_trials, n_begun
):
    place = Place(tmp_path / "starter", url)
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "s", SPEC, {})
    open_confirmation(storage, study, SPEC)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hawsweep.search.sampler", "hawsweep.study.storage"])
    at_once, at_end, numbers = context.Barrier(N_HOSTS), context.Event(), context.Queue()
    hosts = [
        context.Process(
            target=ask_once, args=(tmp_path / f"{n}", url, n_trials, at_once, numbers, at_end)
        )
        for n in range(N_HOSTS)
    ]
    for host in hosts:
        host.start()
    got = [numbers.get(timeout=400) for _ in hosts]
    at_end.set()
    for host in hosts:
        host.join(60)
        assert host.exitcode == 0
    assert sorted(each for each in got if each is not None) == list(range(n_begun))
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * n_begun
    settings = Counter(tuple(sorted(trial.params.items())) for trial in trials)
    assert len(settings) == n_begun
    assert all(trial.params.keys() == SPEC.search.keys() for trial in trials)
    if isinstance(storage, RDBStorage):  # else its connections outlive the server
        storage.remove_session()
        storage.engine.dispose()
