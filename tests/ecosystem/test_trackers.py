"""Runs in trackers, read back from their own stores, and trackers that fail."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from noted_study import SPEC, make_study

from hawsweep.errors import SpecError
from hawsweep.prepare.validate import validate_sweep
from hawsweep.running import report_to
from hawsweep.running.events import Event
from hawsweep.running.report_to import reporting
from hawsweep.running.start import join_sweep, run_sweep
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place

SCRIPT = Path(__file__).with_name("read_tracker.py")
SETTINGS = {"learning_rate": 2e-4, "lora_parameters.rank": 8}
SWEEP = {
    "model": "some/model",
    "data": "phrasebook",
    "search": {"learning_rate": {"choices": [1e-4]}},
}
VERDICT = "Use trial 0: it is better."


def start(worker, number):
    return Event("trial_start", worker, {"number": number, "settings": SETTINGS})


def train(worker, step):
    values = {"iteration": step, "train_loss": 4 - step / 20, "tokens_per_s": 75.0}
    return Event("train", worker, values)


def evaluate(worker, step):
    return Event("eval", worker, {"iteration": step, "val_loss": 3 - step / 20})


def end(worker, number, state, **more):
    return Event("trial_end", worker, {"number": number, "state": state, **more})


# Two workers at a time; the values of iteration N are 4 - N / 20 and 3 - N / 20.
FIRST = [
    Event("base_end", 0, {"base": {"score": 0.1, "val_loss": 3.5}}),
    *(start(0, 0), start(1, 1)),
    *(train(0, 10), train(1, 10), evaluate(1, 10), evaluate(0, 10), train(0, 20), evaluate(0, 20)),
    *(end(0, 0, "paused", val_loss=2.0), end(1, 1, "pruned", val_loss=2.5)),
]
# The worker of trial 0 was killed after it had reported iteration 20, and began again from 10.
AGAIN = [
    start(1, 0),
    *(train(1, 20), evaluate(1, 20), train(1, 30), evaluate(1, 30)),
    end(
        1,
        0,
        "complete",
        val_loss=1.5,
        score=0.62,
        time_s=90.0,
        peak_memory_bytes=2_000_000_000,
        predicted_memory_bytes=2_500_000_000,
    ),
    Event("confirm_start", 0, {"number": 0, "settings": SETTINGS, "confirms": 0, "seed": 7}),
    evaluate(0, 30),
    Event("confirm_end", 0, {"number": 0, "state": "complete", "val_loss": 1.5, "score": 0.6}),
    Event("ended"),
]
VALUES = {
    "rates": {"base_score": [[0, 0.1]], "base_loss": [[0, 3.5]]},
    "rates-trial-0": {
        "train_loss": [[10, 3.5], [20, 3.0], [30, 2.5]],
        "tokens_per_s": [[10, 75.0], [20, 75.0], [30, 75.0]],
        "val_loss": [[10, 2.5], [20, 2.0], [30, 1.5]],
        "best_val_loss": [[20, 2.0], [30, 1.5]],
        "score": [[30, 0.62]],
        "time_s": [[30, 90.0]],
        "peak_memory_gb": [[30, 2.0]],
        "predicted_memory_gb": [[30, 2.5]],
    },
    "rates-trial-1": {
        "train_loss": [[10, 3.5]],
        "tokens_per_s": [[10, 75.0]],
        "val_loss": [[10, 2.5]],
        "best_val_loss": [[10, 2.5]],
    },
    "rates-trial-0-seed-7": {
        "val_loss": [[30, 1.5]],
        "best_val_loss": [[30, 1.5]],
        "score": [[30, 0.6]],
    },
}


class Reported:
    """A study whose events are reported as by one start after another."""

    def __init__(self, folder, tracker):
        self.place, self.tracker = Place(folder), tracker
        self.study = make_study(self.place)
        for number in range(2):
            self.place.trial_dir("rates", number).mkdir(parents=True)
        self.place.confirm_dir("rates", 0).mkdir(parents=True)

    def tell(self, events):
        """Report; give what was said of a fault."""
        said, spec = [], SPEC.model_copy(update={"report_to": (self.tracker,)})
        with reporting(spec, self.study, self.place, said.append, joins=False) as listen:
            for event in events:
                listen(event)
        assert [each for each in said if each.kind != "not_told"] == events
        return [each.values["text"] for each in said if each.kind == "not_told"]


@pytest.fixture
def reported(tmp_path, monkeypatch):
    monkeypatch.setattr(report_to, "_verdict_of", lambda *_: VERDICT)
    monkeypatch.setattr(report_to, "_LAST_WAIT_S", 300.0)  # all is sent at once, imports included
    return lambda tracker: Reported(tmp_path / "studies", tracker)


def read(tracker):
    """What the tracker's own interface gives, in a process without the filters of tests."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), tracker], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def mlflow_server(folder):
    """MLflow's own server, without its pages for language models."""
    code = (
        "from mlflow.server import app\n"
        "from werkzeug.serving import make_server\n"
        "server = make_server('127.0.0.1', 0, app, threaded=True)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()"
    )
    store = f"sqlite:///{folder}/server.db"
    environment = {**os.environ, "_MLFLOW_SERVER_FILE_STORE": store}
    environment["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(folder / "artifacts")
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log, env=environment
        )
    try:
        port = server.stdout.readline().decode().strip()
        assert port, (folder / "server.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


@contextmanager
def store_of(name, folder, monkeypatch):
    """Where the tracker of that name keeps its runs; gives the tracker."""
    monkeypatch.chdir(folder)
    tracker, _, where = name.partition("-")
    if find_spec(tracker) is None or (where == "server" and find_spec("flask") is None):
        pytest.skip(f"{name} is not installed")
    if name == "mlflow-server":
        with mlflow_server(folder) as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            yield tracker
        return
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/runs.db")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    yield tracker


@pytest.mark.parametrize("name", ["trackio", "mlflow-database", "mlflow-server", "wandb-offline"])
def test_each_trial_is_one_run_of_the_studys_group(reported, tmp_path, monkeypatch, name):
    with store_of(name, tmp_path, monkeypatch) as tracker:
        study = reported(tracker)
        assert study.tell(FIRST) == []
        assert study.tell(AGAIN) == []
        found = read(tracker)
    assert {name: run["values"] for name, run in found.items()} == VALUES
    assert {run["group"] for run in found.values()} == {"rates"}
    assert found["rates"]["text"] == VERDICT
    config = found["rates-trial-0"]["config"]
    assert {key: float(config[key]) for key in SETTINGS} == SETTINGS


@pytest.mark.parametrize("name", ["trackio", "mlflow-database", "wandb-offline"])
def test_the_last_end_of_a_trial_holds_also_at_the_same_iteration(
    reported, tmp_path, monkeypatch, name
):
    with store_of(name, tmp_path, monkeypatch) as tracker:
        study = reported(tracker)
        study.tell([start(0, 0), evaluate(0, 10), end(0, 0, "paused", val_loss=2.5, time_s=30.0)])
        study.tell([start(0, 0), end(0, 0, "complete", val_loss=2.5, time_s=40.0, score=0.6)])
        run = read(tracker)["rates-trial-0"]
    assert run["values"]["time_s"][-1] == [10, 40.0]
    assert run["values"]["score"] == [[10, 0.6]]
    if tracker == "wandb":
        assert (run["summary"]["time_s"], run["summary"]["score"]) == (40.0, 0.6)
        names = {path.name for path in tmp_path.glob("wandb/offline-run-*/files/*")}
        assert not names & {"requirements.txt", "wandb-metadata.json"}


@pytest.mark.parametrize("name", ["trackio", "mlflow-database"])
def test_another_study_of_the_same_name_has_runs_of_its_own(reported, tmp_path, monkeypatch, name):
    with store_of(name, tmp_path, monkeypatch) as tracker:
        reported(tracker).tell(FIRST)
        other = Reported(tmp_path / "others", tracker)
        assert other.tell(FIRST) == other.tell(AGAIN) == []
        assert len(set(read(f"{tracker}-ids"))) == 3 + 4


FAULTY = {
    "raises": (
        "def init(**_):\n    raise RuntimeError('away:\\nhttp://me:T0psecret@host/x')\n",
        "trackio did not log: RuntimeError: away: http://host/x",
    ),
    "raises later": (
        "class init:\n    def __init__(self, **_): pass\n    def log(self, *_, **__): 1 / 0\n"
        "    finish = log\n",
        "trackio did not log: ZeroDivisionError: division by zero",
    ),
    "dies": ("import os\nos._exit(3)\n", "trackio did not log: its process ended"),
    "hangs": ("import time\ntime.sleep(600)\n", "trackio did not take the last values in time"),
    "warns": (
        "import warnings\nclass init:\n    def __init__(self, **_): pass\n"
        "    def log(self, *_, **__): warnings.warn('trackio.log() failed: disk full')\n"
        "    finish = Markdown = lambda *_: None\n",
        "trackio did not log: trackio.log() failed: disk full",
    ),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_tracker_that_fails_is_said_once_and_harms_nothing(reported, tmp_path, monkeypatch, kind):
    code, said = FAULTY[kind]
    (tmp_path / "trackio.py").write_text(code)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(report_to, "_LAST_WAIT_S", 3.0 if kind == "hangs" else 300.0)
    study = reported("trackio")
    [text] = study.tell(FIRST + AGAIN)
    log = study.place.study_dir("rates") / "trackio.log"
    assert text == said + ("" if kind == "hangs" else f" ({log} has more)")
    assert log.is_file()


def test_server_that_is_away_is_said_once(reported, tmp_path, monkeypatch):
    with store_of("mlflow-database", tmp_path, monkeypatch) as tracker:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:T0psecret@127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        [text] = reported(tracker).tell(FIRST)
    assert text.startswith("mlflow did not log: MlflowException: ")
    assert "T0psecret" not in text


def test_key_that_is_missing_is_said_once_and_not_asked_for(reported, tmp_path, monkeypatch):
    with store_of("wandb-offline", tmp_path, monkeypatch) as tracker:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        [text] = reported(tracker).tell(FIRST)
    assert text.startswith("wandb did not log: UsageError: ")
    assert "WANDB_API_KEY" in text or "API key" in text


def test_tracker_that_is_not_installed_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hawsweep.planning.check_settings.find_spec", lambda name: name if name == "wandb" else None
    )
    spec = SPEC.model_copy(update={"report_to": ("trackio", "wandb", "mlflow")})
    with pytest.raises(SpecError) as caught:
        run_sweep(spec, "rates", studies_dir=tmp_path / "studies")
    assert str(caught.value) == (
        "report_to names trackio and mlflow, which are not installed: pip install trackio "
        "mlflow-skinny, "
        "or in a clone pip install -e '.[trackio,mlflow]'. Or leave it out with --set report_to=[]."
    )
    assert not (tmp_path / "studies").exists()
    found = validate_sweep(spec, "rates", Place(tmp_path / "studies"))
    assert [each.text for each in found if each.subject == "report_to"] == [str(caught.value)]


def test_worker_elsewhere_does_without_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hawsweep.planning.check_settings.find_spec", lambda name: name if name == "wandb" else None
    )
    place, said, asked = Place(tmp_path / "studies"), [], []
    make_study(place).set_user_attr("how", {"trials": 3, "report_to": ["trackio", "wandb"]})

    def resolve(spec, *_):
        asked.extend(spec.report_to)
        raise KeyboardInterrupt

    monkeypatch.setattr("hawsweep.running.start._fingerprints", lambda *_: {})
    monkeypatch.setattr("hawsweep.running.start.check_same_here", lambda *_: None)
    monkeypatch.setattr("hawsweep.running.start._resolve", resolve)
    with pytest.raises(KeyboardInterrupt):
        join_sweep("rates", place, said.append)
    assert asked == ["wandb"]
    assert [each.values["text"] for each in said if each.kind == "not_told"] == [
        "trackio is not installed here: it has no runs of the trials that run here"
    ]


def test_sweep_names_trackers_that_are_known():
    assert check_sweep({**SWEEP, "report_to": "wandb"}, "a sweep").report_to == ("wandb",)
    for asked in ("tensorboard", ["wandb", "wandb"], {"wandb": "key"}):
        with pytest.raises(SpecError) as caught:
            check_sweep({**SWEEP, "report_to": asked}, "a sweep")
        said = "must be one of trackio, wandb, mlflow, or a list of them."
        assert str(caught.value).startswith("a sweep: report_to")
        assert str(caught.value).endswith(said)


def test_workers_import_no_tracker():
    code = (
        "import io, sys\n"
        "from hawsweep.running import report_to, worker\n"
        "sys.argv, sys.stdin = ['worker', 'ahead'], io.StringIO('')\n"
        "worker.main()\n"
        "import mlx_lm.tuner.trainer, mlx_lm.tuner.callbacks\n"
        "found = [name for name in ('trackio', 'wandb', 'mlflow') if sys.modules.get(name)]\n"
        "print(found, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"
