"""The Python interface: what ``from hawsweep import ...`` gives."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from tiny_sweep import really_embedded, tiny_sweep

import hawsweep
from hawsweep import Outcome, StudyResults, load_sweep, open_study, run_sweep
from hawsweep.cli import main
from hawsweep.errors import SpecError, StudyError
from hawsweep.results.leaderboard import TrialRow
from hawsweep.scoring.intervals import Interval
from hawsweep.search.distributions import distributions
from hawsweep.study.confirm import wanted
from hawsweep.study.place import find_place
from hawsweep.study.trials import state_of
from hawsweep.views.event_stream import EventStream
from hawsweep.views.json_schema import STREAMS

ROOT = Path(__file__).parents[1]
EXAMPLE, OPTUNA_EXAMPLE = (
    re.search(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)[1]
    for name in ("README.md", "docs/commands.md")
)
HEAVY = ("mlx", "torch", "optuna", "numpy", "pydantic", "sentence_transformers", "yaml")


def python(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, **options
    )


class Swept:
    """A sweep that was run in a thread, what it gave and what it told."""

    def __init__(self, folder, spec):
        self.studies_dir = folder / "studies"
        self.events = []
        self.verbosity = optuna.logging.get_verbosity()
        about = {"studies_dir": self.studies_dir, "on_event": self.events.append}
        with ThreadPoolExecutor() as threads:
            self.outcome = threads.submit(run_sweep, spec, "tiny", **about).result(timeout=1800)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_model_dir, chat_data_dir):
    changes = {"trials": 3, "confirm": {"top": 2, "seeds": 1}, "search.iters.choices": (8, 12)}
    spec = load_sweep(tiny_sweep(tiny_model_dir, chat_data_dir), changes)
    return Swept(tmp_path_factory.mktemp("swept"), spec)


@pytest.fixture(autouse=True)
def no_place_in_the_environment(monkeypatch):
    for name in ("HAWSWEEP_STUDIES_DIR", "HAWSWEEP_STORAGE", "HAWSWEEP_NOTIFY"):
        monkeypatch.delenv(name, raising=False)


def test_import_of_the_package_loads_no_library():
    code = f"import hawsweep, sys; print([each for each in {HEAVY} if each in sys.modules])"
    done = python("-c", code, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    for name in hawsweep.__all__:
        assert getattr(hawsweep, name).__doc__
        assert name in dir(hawsweep)
    with pytest.raises(AttributeError, match="module 'hawsweep' has no attribute 'start'"):
        _ = hawsweep.start


def test_readme_example_has_types(tmp_path):
    script = tmp_path / "example.py"
    asked = "reveal_type(spec)\nreveal_type(outcome)\nreveal_type(later.samples(0))\n"
    script.write_text(EXAMPLE + asked)
    done = python("-m", "mypy", "--strict", str(script), cwd=ROOT)
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert revealed == [
        "hawsweep.spec.sweep.SweepSpec",
        "hawsweep.running.start.Outcome",
        "list[hawsweep.scoring.score.Sample]",
    ]
    assert done.returncode == 0, done.stdout


def test_readme_example_runs_as_a_script(tmp_path, tiny_model_dir, chat_data_dir):
    # A sweep in sweeps/ here comes before hawsweep's own of that name: the tiny model's instead.
    (tmp_path / "sweeps").mkdir()
    sweep = really_embedded(tiny_sweep(tiny_model_dir, chat_data_dir))
    (tmp_path / "sweeps" / "lr-rank.yaml").write_text(json.dumps(sweep))
    (tmp_path / "example.py").write_text(EXAMPLE + OPTUNA_EXAMPLE)
    done = python("-W", "error::ResourceWarning", "example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("trial_end {'number': ")]) == 4
    assert {line.split()[0] for line in lines[4:9]} == {"base", "0", "1", "2", "3"}
    study = optuna.load_study(
        study_name="from-python", storage=f"sqlite:///{tmp_path}/studies/hawsweep.db"
    )
    best = study.best_trial
    folder = Path("studies", "from-python", "trials", f"{best.number:04d}", "adapters")
    assert lines[9] == f"finished {best.params} {folder}"
    assert (tmp_path / folder / "adapters.safetensors").is_file()
    assert lines[10].startswith(f"{best.value} Use ")  # the recommendation, as a sentence
    assert "parallel" in (tmp_path / "parallel.html").read_text(encoding="utf-8")
    assert study.user_attrs["spec"]["train"]["batch_size"] == 2


def test_events_are_what_the_schema_of_start_says(swept):
    lines = []
    stream = EventStream(lines.append)
    stream.begin("tiny")
    for event in swept.events:
        stream(event)
    stream.end(swept.outcome)
    for line in lines:
        STREAMS["start"].validate_python(line)
    of_work = ("base", "trial", "confirm", "test")
    kinds = {f"{kind}_{at}" for kind in of_work for at in ("start", "end")}
    kinds |= {"begin", "preparing", "study", "ready", "train", "eval", "scoring", "end"}
    assert {line["event"] for line in lines} == kinds
    iterations = [line["iteration"] for line in lines if line["event"] == "train"]
    assert set(iterations) == {4, 8, 12}  # each report says where it is


def test_sweep_in_a_thread_ends_with_its_results(swept):
    outcome = swept.outcome
    assert isinstance(outcome, Outcome)
    assert (outcome.ended, outcome.name, outcome.spec.trials) == ("finished", "tiny", 3)
    assert outcome.folder == swept.studies_dir / "tiny"
    ended = [event.values for event in swept.events if event.kind == "trial_end"]
    assert [(each["number"], each["state"]) for each in ended] == [
        (0, "complete"),
        (1, "complete"),
        (2, "complete"),
    ]
    rows = {row.label: row for row in outcome.leaderboard()}
    assert {label: rows[label].score for label in "012"} == {
        str(each["number"]): pytest.approx(each["score"]) for each in ended
    }
    assert optuna.logging.get_verbosity() == swept.verbosity


def test_best_trial_is_the_best_by_new_seeds(swept):
    again = {
        row.label: row.confirmed for row in swept.outcome.leaderboard() if row.confirmed is not None
    }
    assert len(again) == 2
    best = swept.outcome.best_trial
    assert again[str(best.number)] == max(again.values())
    assert swept.outcome.verdict().winner == f"trial {best.number}"


def test_study_opened_later_gives_the_same(swept):
    later = open_study("tiny", studies_dir=swept.studies_dir)
    assert isinstance(later, StudyResults)
    assert later.leaderboard() == swept.outcome.leaderboard()
    assert later.verdict() == swept.outcome.verdict()
    assert later.spec == swept.outcome.spec
    with pytest.raises(StudyError, match=r"There is no study 'large'\. Studies here: tiny"):
        open_study("large", studies_dir=swept.studies_dir)


def test_samples_are_those_of_trial_baseline_and_split(swept):
    results = swept.outcome
    best = results.best_trial.number
    lines = (results.trial_dir(best) / "samples.jsonl").read_text().splitlines()
    assert [vars(sample) for sample in results.samples(best)] == [json.loads(x) for x in lines]
    assert len(results.samples("base")) == len(lines) == 4
    assert len(results.samples(best, "test")) == len(results.samples("base", "test")) == 8
    assert results.samples(1 - best if best < 2 else 0, "test") == []
    assert results.samples("few_shot") == []
    with pytest.raises(StudyError, match="has no trial 7; it has 0 to 2"):
        results.samples(7)
    with pytest.raises(StudyError, match="has no trial 7; it has 0 to 2"):
        results.trial_dir(7)


def test_study_stays_an_ordinary_optuna_study(swept):
    url = f"sqlite:///{swept.studies_dir / 'hawsweep.db'}"
    study = optuna.load_study(study_name="tiny", storage=url)
    values = [row.score for row in swept.outcome.leaderboard() if row.state == "complete"]
    assert study.best_value == max(values)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    for draw in (
        optuna.visualization.plot_optimization_history,
        optuna.visualization.plot_intermediate_values,
        optuna.visualization.plot_slice,
    ):
        assert draw(study).data
    for trial in study.get_trials():
        losses = [-value for value in trial.intermediate_values.values()]
        assert min(losses) == pytest.approx(trial.user_attrs["val_loss"])


def test_trials_of_others_do_no_harm(swept, tmp_path):
    studies_dir = shutil.copytree(swept.studies_dir, tmp_path / "studies")
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{studies_dir / 'hawsweep.db'}")
    other = {"something": FloatDistribution(0, 1)}
    study.add_trial(create_trial(value=99.0, params={"something": 0.5}, distributions=other))
    study.add_trial(create_trial(state=TrialState.PRUNED))
    study.enqueue_trial({"iters": 8})
    study.optimize(lambda trial: trial.suggest_float("something", 0, 1), n_trials=1)
    results = open_study("tiny", studies_dir=studies_dir)
    assert {row.label for row in results.leaderboard()} == {"base", *"012345"}
    assert results.verdict() == swept.outcome.verdict()
    assert results.best_trial.number == swept.outcome.best_trial.number
    assert {number for number, _ in wanted(study, results.spec)} <= {0, 1, 2}
    assert results.samples(3) == []
    for command in (
        ["status", "tiny", "--why"],
        ["status", "tiny", "--json", "--groups"],
        ["show", "tiny", "3"],
        ["show", "tiny", "4"],
        ["compare", "tiny"],
        ["list"],
        ["doctor"],
    ):
        done = CliRunner().invoke(main, [*command, f"--studies-dir={studies_dir}"])
        assert done.exit_code == 0, (command, done.output, done.exception)


def test_what_on_event_raises_ends_a_sweep_that_goes_on(tmp_path, tiny_model_dir, chat_data_dir):
    spec = load_sweep(tiny_sweep(tiny_model_dir, chat_data_dir), {"trials": 2})

    def stop_at_first_evaluation(event):
        if event.kind == "eval":
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        run_sweep(spec, "tiny", studies_dir=tmp_path, on_event=stop_at_first_evaluation)
    started = open_study("tiny", studies_dir=tmp_path)
    assert state_of(started.study.get_trials()[0]) == "paused"
    # Beside it one that somebody trained elsewhere, which is the best and has nothing here.
    known = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}
    by_hand = create_trial(value=99.0, params=known, distributions=distributions(spec.search))
    started.study.add_trial(by_hand)
    outcome = run_sweep(spec, "tiny", studies_dir=tmp_path)
    assert outcome.ended == "finished"
    ended = outcome.study.get_trials(states=(TrialState.COMPLETE,))
    [ours] = [trial for trial in ended if trial.value != by_hand.value]
    assert ours.number == 0
    assert outcome.best_trial.value == by_hand.value
    assert "test" not in outcome.study.user_attrs


def test_records_are_shown_with_few_digits_and_without_what_is_missing():
    row = TrialRow("3", "complete", {"learning_rate": 1e-3}, score=0.61234567)
    assert repr(row) == (
        "TrialRow(label='3', state='complete', settings={'learning_rate': 0.001}, score=0.612346)"
    )
    assert repr(Interval(1 / 3, -math.inf, 1.0)) == (
        "Interval(mean=0.333333, low=-inf, high=1, level=0.95)"
    )


def test_interrupted_script_has_its_outcome(tmp_path, tiny_model_dir, chat_data_dir):
    sweep = really_embedded(tiny_sweep(tiny_model_dir, chat_data_dir))
    (tmp_path / "tiny.json").write_text(json.dumps(sweep))
    (tmp_path / "script.py").write_text(
        "import json\n"
        "from hawsweep import load_sweep, run_sweep\n"
        "spec = load_sweep(json.load(open('tiny.json')), {'trials': 50})\n"
        "print(run_sweep(spec, 'tiny', on_event=lambda e: print(e.kind, flush=True)).ended)\n"
    )
    command = [sys.executable, "script.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as script:
        for line in script.stdout:
            if line == "trial_start\n":
                os.kill(script.pid, signal.SIGINT)
        assert script.wait(timeout=100) == 0
    assert line == "interrupted\n"


def test_sweep_is_given_by_name_path_or_keys(tmp_path, monkeypatch, tiny_model_dir):
    keys = tiny_sweep(tiny_model_dir, "phrasebook")
    (tmp_path / "sweeps").mkdir()
    path = tmp_path / "sweeps" / "tiny.yaml"
    path.write_text(json.dumps(keys))
    monkeypatch.chdir(tmp_path)
    specs = [load_sweep(each) for each in ("tiny", path, str(path), keys)]
    assert all(spec == specs[0] for spec in specs)
    assert load_sweep("lr-rank").trials == 6
    changed = load_sweep(
        keys, {"model": tmp_path, "search.lora_parameters.rank": {"choices": (8,)}}
    )
    assert changed.model == str(tmp_path)
    assert changed.search["lora_parameters.rank"].choices == (8,)
    assert keys["model"] == str(tiny_model_dir)  # what was given is as it was


def test_faults_of_keys_are_named_all_at_once():
    keys = tiny_sweep("x", "phrasebook")
    changes = {"trials": 0, "search.lora_parameters.rank": {"choices": (0,)}, "train.rank": 4}
    with pytest.raises(SpecError) as caught:
        load_sweep(keys, changes)
    message = str(caught.value)
    assert message.startswith("the sweep has 3 faults:\n")
    assert "trials is 0, must be 1 or more." in message
    assert "search.lora_parameters.rank.choices[0] is 0, must be 1 or more." in message
    assert "train.rank is not a key" in message


def test_place_is_as_said_before_the_environment_before_here(monkeypatch, tmp_path):
    assert find_place().studies_dir == Path("studies")
    monkeypatch.setenv("HAWSWEEP_STUDIES_DIR", str(tmp_path))
    monkeypatch.setenv("HAWSWEEP_STORAGE", "postgresql://me@h/d")
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", "s3cret")
    place = find_place()
    assert (place.studies_dir, place.storage_url) == (tmp_path, "postgresql://me:s3cret@h/d")
    assert "s3cret" not in repr(StudyResults(None, place))
    place = find_place("~/mine", "sqlite:///x.db")
    assert (place.studies_dir, place.storage_url) == (Path.home() / "mine", "sqlite:///x.db")
