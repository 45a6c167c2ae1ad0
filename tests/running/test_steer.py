"""What is asked of a study while it runs: a setting, the end of a trial, more trials or time."""

import json
import shlex
from functools import partial
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState, create_trial

from hawsweep.cli import main
from hawsweep.cli.start import overrides_of
from hawsweep.errors import HawsweepError
from hawsweep.layout import STATE_FILE
from hawsweep.machine.processes import identity
from hawsweep.planning.share_memory import WorkerShares
from hawsweep.results.what_is_left import find_remaining
from hawsweep.running import steer, supervisor, survey
from hawsweep.running.status import start_command
from hawsweep.running.steer import enqueue, extend, stop_trial
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import check_sweep, find_sweep, read_sweep, study_name_of
from hawsweep.spec.sweep import HOW_IT_RUNS
from hawsweep.study.attributes import HOW
from hawsweep.study.optuna_door import storage_of, trial_id, trial_to_run
from hawsweep.study.queue import ask, pause, repeat_trial
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, extended, spec_of
from hawsweep.study.trials import train_of

SEARCH = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "lora_parameters.rank": {"choices": [4, 8]},
    "batch_size": {"low": 2, "high": 8, "step": 2},
}
SETTING = {"learning_rate": 1e-3, "lora_parameters.rank": 8, "batch_size": 4}


class Steered:
    """A study that asks for three trials."""

    def __init__(self, place, **changes):
        content = {"model": "some/model", "data": "phrasebook", "search": SEARCH, "trials": 3}
        self.place, self.spec = place, check_sweep({**content, **changes}, "a sweep")
        storage = open_storage(place, create=True)
        self.study, _ = create_study(storage, place, "s", self.spec, {})
        self.start(self.spec)

    def start(self, spec):
        how = spec.model_dump(mode="json", include=set(HOW_IT_RUNS))
        self.study.set_user_attr(HOW, how)

    def ask(self):
        space = distributions(self.spec.search)
        sampler, folder = partial(make_sampler, self.spec), self.place.study_dir("s")
        return ask(self.study, sampler, space, folder, identity(), self.spec.trials)

    def add(self, state=TrialState.COMPLETE, **changes):
        trial = create_trial(
            state=state,
            value=0.5 if state == TrialState.COMPLETE else None,
            params={**SETTING, **changes},
            distributions=distributions(self.spec.search),
        )
        self.study.add_trial(trial)

    def trial(self, number):
        return self.study.get_trials(deepcopy=False)[number]


@pytest.fixture
def steered(place):
    return Steered(place)


def run(place, *arguments, code=0):
    done = CliRunner().invoke(main, [*arguments, "--studies-dir", str(place.studies_dir)])
    assert done.exit_code == code, done.output
    return done.output


def test_queued_setting_is_the_next_trial_and_the_others_go_on(steered):
    queued = enqueue("s", steered.place, SETTING)
    assert (queued.trial, queued.may_begin) == (0, True)
    assert steered.ask() == 0
    assert steered.trial(0).params == SETTING
    assert steered.trial(0).user_attrs["suggested_by"] == "you"


def test_list_of_layers_is_queued_as_the_choice_that_it_is(place):
    layers = ["self_attn.q_proj", "mlp.up_proj"]
    search = {**SEARCH, "lora_parameters.keys": {"choices": ["all", layers]}}
    steered = Steered(place, search=search)
    run(place, "enqueue", "s", f"lora_parameters.keys=[{', '.join(layers)}]")
    assert steered.ask() == 0
    assert steered.trial(0).params["lora_parameters.keys"] == "self_attn.q_proj, mlp.up_proj"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.1}, "learning_rate is 0.1, must be between 0.0001 and 0.01."),
        ({"learning_rate": float("nan")}, "learning_rate is nan, must be between"),
        ({"lora_parameters.rank": 16}, "lora_parameters.rank is 16, must be one of the choices"),
        ({"batch_size": 3}, "batch_size is 3, must be 2 and whole steps of 2."),
        ({"batch_size": "many"}, "batch_size is 'many', must be between 2 and 8."),
        ({"batch_size": [2]}, "batch_size is [2], must be a number or a name."),
        ({"rank": 8}, "rank is not searched"),
        ({"iters": 100}, "iters is not searched. Searched: learning_rate, lora_parameters.rank, "),
    ],
)
def test_setting_outside_of_the_space_is_refused(steered, changes, said):
    with pytest.raises(HawsweepError) as fault:
        enqueue("s", steered.place, {**SETTING, **changes})
    assert str(fault.value).startswith(said)
    assert steered.study.trials == []


def test_whole_number_is_asked_for_where_the_range_has_no_step(place):
    search = {**SEARCH, "grad_accumulation_steps": {"low": 1, "high": 4}}
    steered = Steered(place, search=search)
    with pytest.raises(HawsweepError, match=r"grad_accumulation_steps is 1\.5, must be a whole"):
        enqueue("s", place, {"grad_accumulation_steps": 1.5})
    assert steered.study.trials == []


@pytest.mark.parametrize(
    ("state", "word"), [(TrialState.COMPLETE, "complete"), (TrialState.PRUNED, "pruned")]
)
def test_setting_that_a_trial_has_is_refused_and_the_trial_is_named(steered, state, word):
    steered.add(state)
    steered.add(learning_rate=2e-3)
    for same in (SETTING, {**SETTING, "learning_rate": 1e-3 * (1 + 1e-12)}):
        with pytest.raises(HawsweepError, match=rf"Trial 0 has this setting already \({word}\)"):
            enqueue("s", steered.place, same)
    assert len(steered.study.trials) == 2


def test_setting_is_queued_once_also_in_part_and_again_after_a_failure(steered):
    for setting in (SETTING, {"lora_parameters.rank": 8}):
        enqueue("s", steered.place, setting)
        with pytest.raises(HawsweepError, match=r"has this setting already \(waiting\)"):
            enqueue("s", steered.place, setting)
    steered.add(TrialState.FAIL, batch_size=8)
    assert enqueue("s", steered.place, {**SETTING, "batch_size": 8}).trial == 3


def test_queued_setting_says_if_no_trial_is_left_for_it_and_what_goes_on(steered):
    for batch_size in (2, 6, 8):
        steered.add(batch_size=batch_size)
    folder = steered.place.studies_dir
    command = f"hawsweep start {folder / 's' / 'spec.yaml'} --study=s --studies-dir={folder}"
    said = run(steered.place, "enqueue", "s", *(f"{k}={v}" for k, v in SETTING.items()))
    assert said.splitlines() == [
        "Queued as trial 3: lr 1.00e-03  rank 8  batch_size 4",
        f"The sweep has no trial left for it: hawsweep extend s --trials=+1 --studies-dir={folder}",
        f"To go on: {command}",
    ]
    command = command.replace("--study=s", "--study=s --trials=5")
    assert run(steered.place, "extend", "s", "--trials", "+2").splitlines() == [
        "Study s: 5 trials.",
        f"To go on: {command}",
    ]
    queued = json.loads(run(steered.place, "enqueue", "s", "learning_rate=2e-4", "--json"))
    assert queued == {
        "study": "s",
        "trial": 4,
        "settings": {"learning_rate": 2e-4},
        "may_begin": True,
        "command": command,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"trials": 40, "timeout": "8h", "workers": 1},
        {"timeout": 90, "confirm": {"top": 1, "seeds": 4}, "prefer": "cheap", "keep": "all"},
        {
            "pruning": {"name": "none"},
            "stop_when": {"expected_gain": "1%"},
            "report_to": ["mlflow"],
            "notify": ["end"],
        },
    ],
)
def test_command_that_goes_on_asks_as_the_last_start_did(steered, asked):
    content = {"model": "some/model", "data": "phrasebook", "search": SEARCH, "trials": 3}
    last = check_sweep({**content, **asked}, "it")
    steered.start(last)
    _, _, path, *options = shlex.split(start_command("s", spec_of(steered.study), steered.place))
    given = dict(each.removeprefix("--").split("=", 1) for each in options if "--set" not in each)
    sets = [each.removeprefix("--set=") for each in options if each.startswith("--set=")]
    known = {key: given[key] for key in ("trials", "timeout", "workers") if key in given}
    assert read_sweep(find_sweep(path), overrides_of(sets, known)) == last
    assert study_name_of(find_sweep(path)) == "s"


def test_running_trial_is_asked_to_end_and_so_is_its_retry(steered):
    steered.ask()
    assert not stop_trial("s", steered.place, 0)
    assert steered.trial(0).state == TrialState.RUNNING
    repeat_trial(steered.study, 0)
    assert [trial.user_attrs["stopped"] for trial in steered.study.trials] == [True, True]


def test_paused_trial_ends_as_pruned_and_a_queued_one_leaves_the_queue(steered):
    steered.ask()
    trial_to_run(steered.study, 0).report(-1.0, 20)
    pause(steered.study, 0)
    enqueue("s", steered.place, SETTING)
    state = steered.place.trial_dir("s", 0) / STATE_FILE
    state.parent.mkdir(parents=True)
    state.touch()
    assert "Trial 0 has ended" in run(steered.place, "stop", "s", "--trial", "0")
    assert stop_trial("s", steered.place, 1)
    ended = [(trial.state, trial.user_attrs["reason"]) for trial in steered.study.trials]
    assert ended == [(TrialState.PRUNED, "stopped by you"), (TrialState.FAIL, "stopped by you")]
    assert not state.exists()


def test_trial_that_is_over_cannot_be_stopped(steered):
    steered.add()
    steered.ask()
    trial_to_run(steered.study, 1).report(-1.0, steered.spec.train.iters)
    for number, said in ((0, r"has ended already \(complete\)"), (1, "is trained already")):
        with pytest.raises(HawsweepError, match=f"Trial {number} {said}"):
            stop_trial("s", steered.place, number)


def test_trial_that_ended_elsewhere_keeps_its_state_and_is_named(steered, monkeypatch):
    def end(study, trial, *_):
        storage_of(study).set_trial_state_values(trial_id(trial), TrialState.PRUNED)
        return False

    monkeypatch.setattr(steer, "end_waiting", end)
    enqueue("s", steered.place, SETTING)
    state = steered.place.trial_dir("s", 0) / STATE_FILE
    state.parent.mkdir(parents=True)
    state.touch()
    with pytest.raises(HawsweepError, match=r"Trial 0 has ended already \(pruned\)"):
        stop_trial("s", steered.place, 0)
    assert state.exists()


@pytest.fixture
def settled(place, monkeypatch):
    """The supervisor of a study that expects nothing of another setting, and its events."""
    steered, events = Steered(place, stop_when={"expected_gain": "1%"}), []
    belief = SimpleNamespace(n_next=1, gain=0.001)
    monkeypatch.setattr(survey, "find_remaining", lambda *_: SimpleNamespace(belief=belief))
    monkeypatch.setattr(supervisor.resolve, "resolve_embedder", lambda _: place.studies_dir)
    shares, listen = WorkerShares(1, None, {}, {}), lambda event: events.append(event.kind)
    steered.supervisor = supervisor.Supervisor(
        steered.spec,
        "s",
        place,
        steered.study,
        steered.study,
        shares,
        listen,
        None,
        {},
        joins=False,
    )
    return steered, events


def test_queued_setting_begins_also_when_the_sweep_is_settled(settled):
    steered, _ = settled
    assert not steered.supervisor._work().may_begin
    enqueue("s", steered.place, SETTING)
    assert steered.supervisor._work().may_begin
    assert steered.ask() == 0
    assert not steered.supervisor._work().may_begin


def test_extended_sweep_says_again_that_it_is_settled(settled):
    steered, events = settled
    steered.supervisor._work()
    said = run(steered.place, "extend", "s", "--trials", "+2")
    assert "another hour is expected to bring less than 1%" in said
    extend("s", steered.place, "+1", None)
    steered.supervisor._extend()
    assert steered.supervisor._work().n_trials == 6
    assert not steered.supervisor._work().may_begin
    assert events == ["settled", "extended", "settled"]


def test_added_trials_count_until_a_start_asks_for_others(steered):
    assert extend("s", steered.place, "+5", None).trials == 8
    assert extend("s", steered.place, "+2", None).trials == 10
    assert spec_of(steered.study).trials == 10
    assert find_remaining(steered.study, spec_of(steered.study)).trials_left == 10
    assert extended(steered.study, steered.spec).trials == 10
    explicit = steered.spec.model_copy(update={"trials": 8})  # what it once was extended to
    assert extended(steered.study, explicit).trials == 8
    other = steered.spec.model_copy(update={"trials": 4})
    assert extended(steered.study, other).trials == 4
    steered.start(other)
    assert extend("s", steered.place, "+1", None).trials == 5
    assert extended(steered.study, steered.spec).trials == 3


def test_added_time_is_added_to_the_timeout(place):
    steered = Steered(place, timeout="1h")
    assert run(place, "extend", "s", "--timeout", "+1h30m").startswith(
        "Study s: 3 trials, 2 h 30 min from its start."
    )
    assert spec_of(steered.study).timeout == 2.5 * 3600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("enqueue", "none", "learning_rate=1e-3"), "There is no study 'none'"),
        (("enqueue", "s", "learning_rate"), "learning_rate: must be KEY=VALUE, such as learning"),
        (("enqueue", "s", "learning_rate=[1"), "learning_rate=[1: the value is not YAML"),
        (("stop", "none", "--trial", "0"), "There is no study 'none'"),
        (("stop", "s", "--trial", "7"), "Study 's' has no trial 7; it has none."),
        (("extend", "none", "--trials", "+1"), "There is no study 'none'"),
        (("extend", "s", "--trials", "+0"), "--trials is '+0', must be trials to add, such as +5."),
        (("extend", "s", "--trials", "-1"), "--trials is '-1', must be trials to add"),
        (("extend", "s", "--trials", "5"), "--trials is '5', must be trials to add"),
        (("extend", "s", "--timeout", "+2h"), "Study 's' has no timeout: nothing limits its time."),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(steered, arguments, said):
    assert run(steered.place, *arguments, code=1).startswith(f"Error: {said}")


@pytest.mark.parametrize("time", ["+0h", "-2h", "2h", "+soon"])
def test_time_in_another_form_is_refused(place, time):
    Steered(place, timeout="1h")
    said = run(place, "extend", "s", "--timeout", time, code=1)
    assert f"--timeout is '{time}', must be a time to add, such as +2h." in said


def test_no_trials_are_added_where_each_setting_was_tried(place):
    steered = Steered(place, search={"lora_parameters.rank": {"choices": [4, 8]}})
    for rank in (4, 8):
        steered.study.enqueue_trial({"lora_parameters.rank": rank})
    said = run(place, "extend", "s", "--trials", "+1", code=1)
    assert "Study 's' has tried each setting of its search space." in said


def test_waiting_and_running_trials_get_more_iterations(place):
    steered = Steered(place, train={"iters": 400, "steps_per_eval": 100})
    steered.study.enqueue_trial(SETTING)
    steered.ask()
    said = run(place, "extend", "s", "--trial", "0", "--iters", "600")
    assert "Trial 0 of study s: 600 iterations, from its next evaluation on." in said
    trial = steered.study.trials[0]
    assert train_of(steered.spec, trial).iters == 600
    said = run(place, "extend", "s", "--trial", "0", "--iters", "600", code=1)
    assert "--iters is 600, must be above 600, which trial 0 has." in said


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"lr_schedule": "cosine"}, "Trial 0 cannot be longer: its learning rate or its order"),
        ({"steps_per_eval": 300}, "or its 400 end between two evaluations, reports or updates."),
    ],
)
def test_trials_that_would_have_been_others_get_no_more_iterations(place, train, says):
    steered = Steered(place, train={"iters": 400, "steps_per_eval": 100, **train})
    steered.study.enqueue_trial(SETTING)
    assert says in run(place, "extend", "s", "--trial", "0", "--iters", "600", code=1)


def test_ended_unknown_and_trained_trials_get_no_more_iterations(place):
    steered = Steered(place, train={"iters": 400, "steps_per_eval": 100})
    steered.add()
    asked = ("extend", "s", "--iters", "600", "--trial")
    assert "Trial 0 has ended already (complete)." in run(place, *asked, "0", code=1)
    assert "has no trial 7" in run(place, *asked, "7", code=1)
    steered.study.enqueue_trial(SETTING | {"batch_size": 2})
    steered.ask()
    trial_to_run(steered.study, 1).report(-1.0, 400)
    assert "Trial 1 is trained already, and is being scored." in run(place, *asked, "1", code=1)
    assert "Give --trial and --iters together." in run(place, *asked[:-1], code=2)
