"""A night on a Mac, in 4 bits and bf16; on a stand-in the CPU computes the GPU's part."""

import json
import os
import re
import signal
import time
import urllib.request

import pytest
from metal import GB, IS_REAL, Mac, made_up
from tiny_4bit import MODELS, save_low
from tiny_sweep import really_embedded, tiny_sweep

from hawsweep.planning.peak import COEFFICIENTS, process_bytes
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study

WATCHDOG = (
    "[METAL] Command buffer execution failed: Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)"
)
IGNORED = (
    "[METAL] Command buffer execution failed: Ignored (for causing prior/excessive GPU errors) "
    "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)"
)


@pytest.fixture(scope="module", params=MODELS)
def low_model(request, tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp(f"{request.param}-4bit")
    save_low(folder, request.param, tokenizer)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("llama-4bit")
    save_low(folder, "llama", tokenizer)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def sweep_of(model, data, **changes):
    made = tiny_sweep(model, data)
    train = {**made["train"], "iters": 16, "num_layers": -1}
    search = {key: value for key, value in made["search"].items() if key != "iters"}
    given = {"train": train, "search": search, "trials": 2}
    return really_embedded({**made, **given, **changes})


def write(folder, sweep):
    (folder / "night.yaml").write_text(json.dumps(sweep), encoding="utf-8")


def study_of(folder):
    return load_study(open_storage(Place(folder / "studies")), "night")


def test_night_goes_from_the_base_to_the_fused_model(tmp_path, cache, low_model, chat_data_dir):
    mac = Mac(tmp_path, cache)
    chosen = {
        "pruning": {"name": "promote"},
        "sampler": {"name": "gp"},
        "confirm": {"top": 1, "seeds": 1},
    }
    write(tmp_path, sweep_of(low_model, chat_data_dir, **chosen))
    assert IS_REAL or "M2" in mac.run("plan", "night.yaml")
    said = mac.run("start", "night.yaml", "--plain")
    study = study_of(tmp_path)
    assert sum(trial.state.name == "COMPLETE" for trial in study.get_trials()) >= 1
    assert study.user_attrs["test"]["n_prompts"] > 0
    assert "With 1 new seed" in said
    assert study.user_attrs["base"]["val_loss"] > 0
    if not IS_REAL:
        # What the budget says is wired, little is kept, and given back between the parts.
        budget = GB * 16 * 2 / 3
        assert all(0 < wired < budget for wired in mac.calls("wired"))
        assert set(mac.calls("cache")) == {GB}
        assert len(mac.calls("clear")) > 10
    lines = (tmp_path / "studies/night/trials/0000/metrics.jsonl").read_text().splitlines()
    [report, *_] = [line for line in map(json.loads, lines) if line["type"] == "train"]
    assert report["footprint_bytes"] > report["active_bytes"] > 0
    planned = process_bytes(study.trials[0].user_attrs["plan"]["peak_bytes"], COEFFICIENTS["metal"])
    assert report["footprint_bytes"] <= 1.3 * planned
    assert "process GB" in mac.run("show", "night", "0")
    mac.run("export", "night", "--fuse")
    assert (tmp_path / "studies/night/export/fused/config.json").is_file()


@made_up
def test_clock_that_is_set_and_another_host_name_leave_workers_alive(
    tmp_path, cache, llama, chat_data_dir
):
    mac = Mac(tmp_path, cache)
    write(tmp_path, sweep_of(llama, chat_data_dir))
    with mac.start("start", "night.yaml", "--plain") as process:
        step = 0
        while process.poll() is None:
            step += 1
            mac.change(clock_step=float(step), host=f"studio-{step % 3}.local")
            time.sleep(0.2)
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert step > 10
    states = [trial.state.name for trial in study_of(tmp_path).get_trials()]
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert "died" not in said


@made_up
def test_six_deaths_by_the_watchdog_leave_the_search_as_it_was(
    tmp_path, cache, llama, chat_data_dir
):
    mac = Mac(tmp_path, cache)
    mac.change(display=True)
    write(tmp_path, sweep_of(llama, chat_data_dir))
    mac.fails_with(*[WATCHDOG] * 6)
    said = mac.run("start", "night.yaml", "--plain")
    assert "the display is on. Let the display sleep (pmset displaysleepnow)" in said
    assert len(mac.calls("fault")) == 6
    study = study_of(tmp_path)
    trials = study.get_trials()
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert [trial.user_attrs["fault"] for trial in failed] == ["watchdog"] * 6
    assert "memory_factor" not in study.user_attrs
    assert not any(trial.user_attrs.get("infeasible") for trial in trials)
    assert not any("below_bytes" in trial.user_attrs for trial in trials)
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) == 2


@made_up
def test_fault_of_the_gpu_costs_a_worker_and_the_same_settings_go_once_more(
    tmp_path, cache, llama, chat_data_dir
):
    mac = Mac(tmp_path, cache)
    write(tmp_path, sweep_of(llama, chat_data_dir))
    mac.fails_with(IGNORED)
    mac.run("start", "night.yaml", "--plain")
    first, *others = study_of(tmp_path).get_trials()
    assert first.user_attrs["fault"] == "gpu"
    [again] = [trial for trial in others if trial.user_attrs.get("repeats") == first.number]
    assert again.params == first.params
    assert again.state.name in ("COMPLETE", "PRUNED")
    assert again.user_attrs["worker"]["pid"] != first.user_attrs["worker"]["pid"]


@made_up
def test_template_is_tried_where_memory_cannot_be_limited(tmp_path, llama):
    code = """
import sys
from pathlib import Path
from hawsweep.models.load import load_tokenizer
print(type(load_tokenizer(Path(sys.argv[1]), {})).__name__)
"""
    assert Mac(tmp_path, tmp_path / "cache").python(code, str(llama)) == "TokenizerWrapper"


def test_doctor_examines_the_mac_and_says_what_never_ran(tmp_path, cache):
    said = Mac(tmp_path, cache).run("doctor", "--json", "--quick")
    found = {each["subject"]: each for each in json.loads(said)["machine"]}
    assert found["device"]["text"].startswith("metal")
    assert "was never run" in found["Metal"]["text"]
    if IS_REAL:
        return
    assert found["GPU memory"]["text"] == "the GPU may take 10.7 GB"
    assert found["pressure"]["text"] == "memory pressure is normal, 70% could be given"
    assert found["display"]["text"] == "it sleeps"


@made_up
@pytest.mark.parametrize("missing", ["sysctl", "device_info"])
def test_what_the_system_does_not_tell_is_no_hindrance(
    tmp_path, cache, llama, chat_data_dir, missing
):
    mac = Mac(tmp_path, cache)
    mac.change(**{missing: {}, "display": None})
    write(tmp_path, sweep_of(llama, chat_data_dir, trials=1))
    said = mac.run("start", "night.yaml", "--plain")
    assert "the display may be on" in said
    assert study_of(tmp_path).get_trials()[0].state.name == "COMPLETE"


def test_killed_supervisor_is_followed_by_another_on_a_machine_of_another_name(
    tmp_path, cache, llama, chat_data_dir
):
    mac = Mac(tmp_path, cache)
    write(tmp_path, sweep_of(llama, chat_data_dir))
    process = mac.start("start", "night.yaml", "--plain")
    metrics = tmp_path / "studies/night/trials/0000/metrics.jsonl"
    while not (metrics.is_file() and '"eval"' in metrics.read_text()):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    mac.change(host="studio-2.local", clock_step=1.0)
    mac.run("start", "night.yaml", "--plain")
    states = [trial.state.name for trial in study_of(tmp_path).get_trials()]
    assert "RUNNING" not in states
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 2
    with mac.start("status", "night", "--watch", "--interval=0.5", "--plain") as watching:
        time.sleep(5)
        watching.send_signal(signal.SIGINT)
        assert "night" in watching.communicate(timeout=60)[0]
    with mac.start("dashboard", "--no-browser") as server:
        said = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)[0]
        with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
            summaries = json.load(answer)["study_summaries"]
        server.terminate()
    assert "night" in [each["study_name"] for each in summaries]


def test_sweep_is_drafted_planned_and_its_model_measured(tmp_path, llama):
    mac = Mac(tmp_path, tmp_path / "cache")
    pairs = [f"ke kumu {number},the teacher {number}" for number in range(200)]
    (tmp_path / "pairs.csv").write_text("\n".join(["hawaiian,english", *pairs]), encoding="utf-8")
    mac.run("init", "pairs", "--data", "pairs.csv", "--model", str(llama), "--hours", "1")
    said = mac.run("plan", "pairs")
    assert IS_REAL or "by the figures of an M2" in said
    said = mac.run("plan", "pairs", "--calibrate")
    assert re.search(r"calibrated here by \d+ steps", said)
    assert "checkpointed" in said
