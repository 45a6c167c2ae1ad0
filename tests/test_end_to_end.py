"""The real model, database and browser: one small sweep and everything that is done with it."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from harness import kill

pytestmark = pytest.mark.real

SMALL = [
    "--trials=2",
    "--set=train.iters=6",
    "--set=search.grad_accumulation_steps={choices: [1, 2]}",
    "--set=train.steps_per_eval=3",
    "--set=train.steps_per_report=2",
    "--set=validation.max_examples=6",
    "--set=scoring.max_examples=3",
    "--set=scoring.max_tokens=6",
    "--set=confirm.top=0",
]
CONFIRM = "--set=confirm={top: 2, seeds: 1}"


def hawsweep(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hawsweep.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command that runs meanwhile; it has ended, or is ended, on leaving."""
    command = [sys.executable, "-m", "hawsweep.cli", *arguments]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            yield process
            process.wait(timeout=900)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "out.txt").write_text(hawsweep("start", "lr-rank", *SMALL, CONFIRM, cwd=folder))
    return folder


def test_sweep_ends_with_a_table_of_trials_and_base(swept: Path) -> None:
    printed = (swept / "out.txt").read_text()
    assert re.search(r"^ +base .*\d\.\d{4}", printed, re.MULTILINE)
    assert len(re.findall(r"^ +[01] +(?:complete|use)", printed, re.MULTILINE)) == 2
    assert re.search(r"^4-shot base .*\d\.\d{4}", printed, re.MULTILINE)
    assert "Test split (6 prompts)" in printed
    assert "3 prompts tell trials apart" in printed
    used = re.search(r"^Use (trial \d|no trial)", printed, re.MULTILINE)
    assert used
    assert ("hawsweep export lr-rank --fuse" in printed) is (used[1] != "no trial")


def test_trial_leaves_its_files_and_relative_paths(swept: Path) -> None:
    study = swept / "studies" / "lr-rank"
    for number in (0, 1):
        folder = study / "trials" / f"{number:04d}"
        for name in (
            "config.yaml",
            "metrics.jsonl",
            "valid_losses.npy",
            "samples.jsonl",
            "log.txt",
        ):
            assert (folder / name).is_file(), name
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        assert [m["iteration"] for m in metrics if m["type"] == "eval"] == [3, 6]
    with closing(sqlite3.connect(swept / "studies" / "hawsweep.db")) as database:
        dump = "\n".join(database.iterdump())
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert str(swept) not in dump


def test_status_and_show_and_list_print_json(swept: Path) -> None:
    status = json.loads(hawsweep("status", "lr-rank", "--json", cwd=swept))
    assert {row["label"] for row in status["trials"]} == {"0", "1", "base", "4-shot base"}
    best = json.loads(hawsweep("list", "--json", cwd=swept))["studies"][0]["best_trial"]
    shown = json.loads(hawsweep("show", "lr-rank", str(best), "--json", cwd=swept))
    assert shown["state"] == "complete"
    assert shown["samples"][0]["output"] is not None


def test_best_trials_were_trained_again_with_a_new_seed(swept: Path) -> None:
    status = json.loads(hawsweep("status", "lr-rank", "--json", cwd=swept))
    confirmed = status["confirmed"]
    assert {each["trial_number"] for each in confirmed} == {0, 1}
    rows = {row["label"]: row for row in status["trials"]}
    for each in confirmed:
        assert each["selected"] == rows[str(each["trial_number"])]["score"]
        assert rows[str(each["trial_number"])]["confirmed"] == each["scores"][0]
    means = [each["scores"][0] for each in confirmed]
    assert means == sorted(means, reverse=True)
    assert status["test"]["trial_number"] == confirmed[0]["trial_number"]
    assert status["test"]["n_opened"] == 1
    assert status["verdict"]["winner"] == f"trial {confirmed[0]['trial_number']}"
    again = swept / "studies" / "lr-rank" / "confirm"
    losses = [
        [
            json.loads(line)["val_loss"]
            for line in (folder / "metrics.jsonl").read_text().splitlines()
            if json.loads(line)["type"] == "eval"
        ]
        for folder in (*sorted(again.glob("[0-9]*")), *sorted((again.parent / "trials").iterdir()))
    ]
    assert len(losses) == 4
    assert len({tuple(each) for each in losses}) == 4  # another seed is another run
    assert "With 1 new seed, trial" in (swept / "out.txt").read_text()


def test_start_again_continues_and_refuses_another_spec(swept: Path) -> None:
    before = json.loads(hawsweep("status", "lr-rank", "--json", cwd=swept))["trials"]
    assert "another spec" in hawsweep(
        "start", "lr-rank", *SMALL, "--set=train.batch_size=2", cwd=swept, code=1
    )
    hawsweep("start", "lr-rank", *SMALL, "--trials=3", cwd=swept)
    after = json.loads(hawsweep("status", "lr-rank", "--json", cwd=swept))["trials"]
    assert len(after) == 5
    assert all(row in after for row in before)


def test_worker_killed_costs_its_trial_only(swept: Path) -> None:
    printed = ""
    with started("start", "lr-rank", *SMALL, "--study=killed", "--workers=1", cwd=swept) as process:
        for line in process.stdout or ():
            printed += line
            if "trial 0 starts" in line:
                commands = {pid: _command(pid) for pid in _children(process.pid)}
                workers = [p for p, each in commands.items() if "hawsweep.running.worker" in each]
                # Not the spare one.
                os.kill(next(p for p in workers if "ahead" not in commands[p]), signal.SIGKILL)
    assert process.returncode == 0, printed
    rows = json.loads(hawsweep("status", "killed", "--json", cwd=swept))["trials"]
    states = {row["label"]: row["state"] for row in rows}
    assert states.pop("base") == states.pop("4-shot base") == "base"
    assert states == {"0": "fail", "1": "complete", "2": "complete"}
    assert "SIGKILL" in next(row["reason"] for row in rows if row["label"] == "0")


def test_interrupt_leaves_a_study_that_goes_on(swept: Path) -> None:
    asked = ("start", "lr-rank", *SMALL, "--trials=1", "--study=interrupted", "--workers=1")
    with started(*asked, cwd=swept) as process:
        for line in process.stdout or ():
            if "trial 0 starts" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    hawsweep("start", "lr-rank", *SMALL, "--trials=1", "--study=interrupted", cwd=swept)
    rows = json.loads(hawsweep("status", "interrupted", "--json", cwd=swept))["trials"]
    states = {row["label"]: row["state"] for row in rows if row["state"] != "base"}
    assert states == {"0": "complete"}


def test_sweep_killed_and_started_again_goes_on_within_its_trial(swept: Path) -> None:
    asked = ("start", "lr-rank", *SMALL, "--trials=1", "--study=cut", "--workers=1")
    cut = swept / "studies" / "cut" / "trials" / "0000"
    with started(*asked, cwd=swept) as process:
        while not (cut / "state.safetensors").exists():
            time.sleep(0.1)
        for pid in (process.pid, *_children(process.pid)):
            kill(pid, signal.SIGKILL)
    begun = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [m["iteration"] for m in begun if m["type"] == "eval"] == [3]
    hawsweep(*asked, cwd=swept)
    rows = json.loads(hawsweep("status", "cut", "--json", cwd=swept))["trials"]
    states = {row["label"]: row["state"] for row in rows if row["state"] != "base"}
    assert states == {"0": "complete"}
    ended = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert ended[: len(begun)] == begun  # times too: they were not measured again
    assert [m["iteration"] for m in ended if m["type"] == "eval"] == [3, 6]


def test_export_fused_translates_as_the_trial_did(swept: Path) -> None:
    exported = json.loads(hawsweep("export", "lr-rank", "--fuse", "--ollama", "--json", cwd=swept))
    assert [part["name"] for part in exported["parts"]] == ["adapters", "fused"]
    for part in exported["parts"]:
        assert part["check"]["score"] == pytest.approx(exported["score"], abs=0.01)
        assert part["check"]["near"] >= 2 / 3
    fused = swept / "studies" / "lr-rank" / "export" / "fused"
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(fused)]
    command += ["--prompt", "Aloha.", "--max-tokens", "3"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "Generation: 3 tokens" in said or "Generation:" in said
    assert "there already" in hawsweep("export", "lr-rank", cwd=swept, code=1)
    modelfile = (swept / "studies" / "lr-rank" / "export" / "Modelfile").read_text(encoding="utf-8")
    assert "<|im_start|>system\n{{ .Content }}<|im_end|>\n" in modelfile
    assert 'SYSTEM """Translate Hawaiian to English."""' in modelfile


def test_config_of_a_trial_starts_mlx_lm_lora(swept: Path) -> None:
    config = Path("studies", "lr-rank", "trials", "0000", "config.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", "lora", "-c", str(config), "--iters", "1"]
        + ["--val-batches", "1", "--batch-size", "1"],
        cwd=swept,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = json.loads(hawsweep("show", "lr-rank", "0", "--json", cwd=swept))["settings"]
    assert f"rank {settings['lora_parameters.rank']}" in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    adapter = swept / config.parent / "mlx_lm_adapters" / "adapters.safetensors"
    assert adapter.is_file()


def test_dashboard_shows_the_study_in_a_browser(swept: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with started("dashboard", f"--port={port}", cwd=swept) as server:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
        address = f"http://127.0.0.1:{port}"
        _wait_for(address)
        with urllib.request.urlopen(f"{address}/api/studies", timeout=10) as answer:
            names = {s["study_name"] for s in json.load(answer)["study_summaries"]}
        assert "lr-rank" in names
        if chromium is None:
            server.terminate()
            pytest.skip("no Chromium: the page was served, but not looked at in a browser")
        page = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
            + ["--no-first-run", "--disable-background-networking", "--disable-sync"]
            + ["--disable-component-update", f"--user-data-dir={swept / 'chromium'}"]
            + ["--virtual-time-budget=15000", "--dump-dom", f"{address}/dashboard"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        ).stdout
        assert "lr-rank" in page
        server.terminate()


def _wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/dashboard", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} did not answer")


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _command(pid: int) -> str:
    import psutil

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:  # it has ended
        return ""
