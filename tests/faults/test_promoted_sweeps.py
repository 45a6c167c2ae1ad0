"""Trials pause at rungs and are promoted; whatever dies meanwhile, nothing is trained twice."""

import json
import random
import signal
import time
from collections import Counter

import pytest
from harness import INTERVAL, count, kill
from optuna.trial import TrialState

from hawsweep.layout import STATE_FILE

ITERS = 160
RUNGS = (20, 40, 80)
N_DEATHS = 4  # of each seed
PROMOTED = {
    "pruning": {"name": "promote"},
    "sampler": {"name": "gp"},
    "search": {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "lora_parameters.rank": {"choices": [2, 4]},
    },
    "confirm": {"top": 2, "seeds": 1},
}


def promoting(lab, **changes):
    here = lab(**{**PROMOTED, "trials": 6, **changes})
    content = json.loads((here.folder / "sweep.yaml").read_text())
    content["train"]["iters"] = ITERS
    (here.folder / "sweep.yaml").write_text(json.dumps(content))
    return here


def settings_of(trial):
    return json.dumps(trial.params, sort_keys=True)


def count_iterations(events):
    """The iterations trained of each setting; the events are of one worker."""
    trained, settings = Counter(), None
    for event in events:
        if event["kind"] in ("trial_start", "confirm_start"):
            is_trial = event["kind"] == "trial_start"
            settings = json.dumps(event["values"]["settings"], sort_keys=True) if is_trial else None
        if event["kind"] == "iteration" and settings is not None:
            trained[settings] += 1
    return trained


def check_promoted(here, events, n_deaths):
    trials = here.trials()
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len({settings_of(t) for t in ended}) == len(ended) == 6
    complete = [t for t in ended if t.state == TrialState.COMPLETE]
    assert 2 <= len(complete) < 6
    for trial in ended:
        folder = here.studies / "tiny" / "trials" / f"{trial.number:04d}"
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        evaluated = [each for each in map(json.loads, lines) if each["type"] == "eval"]
        last = ITERS if trial in complete else trial.last_step
        assert [each["iteration"] for each in evaluated] == [*range(INTERVAL, last + 1, INTERVAL)]
        assert not (folder / STATE_FILE).exists()
        if trial not in complete:
            assert last in RUNGS
            said = trial.user_attrs["reason"]
            assert said == f"not promoted past {last} of {ITERS}"
    trained = count_iterations(events)
    reached = {settings_of(t): t.last_step for t in ended}
    assert trained.keys() >= reached.keys()  # one that died twice is not tried again
    twice = sum(trained[each] - at for each, at in reached.items())
    assert 0 <= twice <= n_deaths * INTERVAL
    return complete


def adapter_of(here, number):
    folder = here.studies / "tiny" / "trials" / f"{number:04d}"
    return (folder / "adapters" / "adapters.safetensors").read_bytes()


def test_sweep_promotes_and_a_promoted_trial_ends_as_one_that_never_paused(lab):
    here = promoting(lab)
    with here.start() as run:
        assert run.wait() == 0
    complete = check_promoted(here, run.events, 0)
    paused = [
        event["values"]
        for event in run.events
        if event["kind"] == "trial_end" and event["values"]["state"] == "paused"
    ]
    numbers = {each["number"] for each in paused}
    assert len(numbers) >= 4
    assert all(each["reason"].startswith("at iteration ") for each in paused)
    best = max((t for t in complete if t.number in numbers), key=lambda trial: trial.value)
    whole = promoting(lab, enqueue=[best.params], trials=1, pruning={"name": "none"})
    with whole.start("confirm.top=0") as run:
        assert run.wait() == 0
    (alone,) = whole.trials()
    assert alone.intermediate_values == best.intermediate_values
    assert alone.value == best.value
    assert adapter_of(whole, 0) == adapter_of(here, best.number)
    again = [e["values"] for e in run.events if e["kind"] == "confirm_end"]
    assert not again


@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments_repeat_no_more_than_an_interval_each(lab, seed):
    here, generator = promoting(lab), random.Random(seed)
    events, n_deaths = [], 0
    while n_deaths < N_DEATHS:
        with here.start() as run:
            seen = 0
            for _ in range(generator.randint(1, 3)):
                event, seen = run.next(("trial_start", "trial_end", "eval"), seen)
                if event is None:
                    break
            time.sleep(generator.uniform(0, 2))
            victims = [run.process.pid, *run.workers().values()]
            if generator.random() < 0.5:
                victims = victims[1:]
            if sum(kill(pid, signal.SIGKILL) for pid in victims):
                n_deaths += 1
                count("killed while promoting")
            if run.process.pid not in victims:
                run.next(("died",))
                kill(run.process.pid, signal.SIGINT)
            run.wait()
        events += run.events
        if run.ended and run.events[-1].get("how") == "finished":
            break
    with here.start() as run:
        assert run.wait() == 0
    check_promoted(here, [*events, *run.events], n_deaths)


def test_both_of_two_settings_are_promoted_to_the_end_and_confirmed(lab):
    search = {
        "learning_rate": {"choices": [1e-3, 3e-3]},
        "lora_parameters.rank": {"choices": [2]},
    }
    here = promoting(lab, search=search, trials=4)
    with here.start() as run:
        assert run.wait() == 0
    assert run.events[-1]["how"] == "finished"
    trials = here.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    confirmed = here.study.user_attrs["confirm"]
    assert {each["trial_number"] for each in confirmed} == {0, 1}
    assert any(event["kind"] == "exhausted" for event in run.events)
