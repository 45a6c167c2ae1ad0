"""Processes that hawsweep starts, in a folder that holds modules of a stranger."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hawsweep
from hawsweep.errors import ExportError, ModelError, SpecError
from hawsweep.export.fuse import run_fuse
from hawsweep.machine.children import child_command, child_environment
from hawsweep.models.from_gguf import write_tokenizer
from hawsweep.models.resolve import resolve_embedder
from hawsweep.planning.measured_steps import PACE, built_shape, measure
from hawsweep.prepare.self_test import run_selftest
from hawsweep.running.background import start_detached
from hawsweep.running.worker_process import WorkerStarter
from hawsweep.scoring import embedder_process
from hawsweep.scoring.embedder_process import own_embedder
from hawsweep.scoring.metrics import find_metric
from hawsweep.study.place import Place
from hawsweep.study.provenance import git_state

TRAPS = (
    *("json", "os", "random", "sitecustomize", "usercustomize"),
    *("click", "hawsweep", "mlx", "mlx_lm", "numpy", "optuna", "pydantic", "torch", "transformers"),
    "sentence_transformers/__init__",
)
ROOT = Path(hawsweep.__file__).parent


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """The current folder: each module in it leaves a file with its name where it is run."""
    folder = tmp_path / "here"
    for name in TRAPS:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        marker = folder / f"{name.replace('/', '.')}.was-run"
        path.write_text(f"open({str(marker)!r}, 'w').close()\nraise SystemExit('a trap')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mistaken_path(trapped, monkeypatch):
    """Beside what ``PYTHONPATH`` is now, an empty entry, as ``:/more`` has it."""
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep + (known or str(ROOT.parent)))


def run_traps(folder):
    return sorted(path.name for path in folder.rglob("*.was-run"))


def start_worker(folder, *, spare=False):
    log, starter = folder / "worker.log", WorkerStarter(1)
    if spare:
        starter.keep_spare(log)
    process = starter.start(log)
    process.communicate(timeout=120)  # it ends with its standard input
    assert process.returncode == 0, log.read_text()


def embed(folder, monkeypatch):
    real = child_command("-m", "hawsweep.scoring.embedder_process")
    monkeypatch.setattr(embedder_process, "_COMMAND", real)
    client = own_embedder(resolve_embedder("all-MiniLM-L6-v2"), trust_remote_code=False)
    assert client(["a"]).shape[0] == 1


def fuse(folder):
    with pytest.raises(ExportError, match=r"mlx_lm\.fuse failed"):
        run_fuse(folder / "x", folder, folder / "y", dequantize=False, trust_remote_code=False)


def convert(folder):
    (folder / "none.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"tokenizer of none\.gguf") as caught:
        write_tokenizer(folder / "none.gguf", folder)
    assert "a trap" not in str(caught.value)


def train(folder, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(folder / "cache"))  # without the bundled model
    assert run_selftest().seconds > 0


CHILDREN = {
    "worker": lambda folder, _: start_worker(folder),
    "spare worker": lambda folder, _: start_worker(folder, spare=True),
    "embedder": embed,
    "sweep in the background": lambda folder, _: start_detached(["list"], "x", Place(folder / "s")),
    "fusing": lambda folder, _: fuse(folder),
    "conversion of a tokenizer": lambda folder, _: convert(folder),
    "self-test": train,
}


@pytest.mark.usefixtures("mistaken_path")
@pytest.mark.parametrize("kind", CHILDREN)
def test_child_runs_no_module_of_the_current_folder(kind, trapped, monkeypatch):
    CHILDREN[kind](trapped, monkeypatch)
    assert run_traps(trapped) == []


@pytest.mark.usefixtures("mistaken_path")
def test_measured_steps_run_no_module_of_the_current_folder(trapped, tiny_model_dir):
    config = json.loads((tiny_model_dir / "config.json").read_text())
    assert built_shape(config, in_float32=True) is not None
    assert len(measure(tiny_model_dir, [PACE])) == 1
    assert run_traps(trapped) == []


@pytest.mark.parametrize("arguments", [("-c", "import json"), ("-m", "json.tool", "--help")])
@pytest.mark.parametrize(
    "entries",
    [None, "", ":", "{abs}:", ":{abs}", "{abs}::{abs}", ".", "./", "..//here", "../here/.", "./."],
)
def test_module_search_of_a_child_is_without_the_current_folder(
    entries, arguments, trapped, tmp_path, monkeypatch
):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if entries is not None:
        absolute = tmp_path / "more"
        monkeypatch.setenv("PYTHONPATH", entries.format(abs=absolute))
    command = child_command(*arguments)
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr, run_traps(trapped)) == (0, "", [])


def test_relative_path_through_a_link_to_the_current_folder_is_left_out(trapped, monkeypatch):
    (trapped.parent / "link").symlink_to(trapped)
    monkeypatch.setenv("PYTHONPATH", "../link")
    assert child_environment()["PYTHONPATH"] == ""


def test_other_folders_of_the_module_search_stay(trapped, tmp_path, monkeypatch):
    chosen = os.pathsep.join(["/one", "../two", str(trapped), "sub"])
    monkeypatch.setenv("PYTHONPATH", chosen)
    assert child_environment()["PYTHONPATH"] == chosen


def test_processes_of_a_child_leave_the_current_folder_out_too(trapped):
    code = (
        "import multiprocessing\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    print(pool.apply(len, ('abc',)))\n"
    )
    command = child_command("-c", code)
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    assert (done.stdout, run_traps(trapped)) == ("3\n", []), done.stderr


def test_command_hawsweep_runs_no_module_of_the_current_folder(trapped):
    script = trapped.parent / "bin" / "hawsweep"  # as pip writes it
    script.parent.mkdir()
    script.write_text("import sys\nfrom hawsweep.cli import run\nsys.exit(run())\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, script, "list"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, run_traps(trapped)) == (0, []), done.stderr


def test_python_is_started_by_one_function():
    starts = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"
    ]
    assert starts == ["machine/children.py"]


@pytest.mark.parametrize("name", ["json", "torch", "numpy", "hawsweep"])
def test_metric_is_the_file_of_that_name_and_no_other_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("def f(source, reference, output):\n    return 7\n")
    before = sys.modules.get(name)
    metric = find_metric(f"{name}:f")
    assert metric is not None
    assert metric("", "", "") == 7
    assert sys.modules.get(name) is before


def test_metric_that_imports_a_file_beside_it_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import beside_it\n")
    (tmp_path / "beside_it.py").write_text("")
    with pytest.raises(SpecError) as caught:
        find_metric("mine:f")
    assert str(caught.value) == (
        "scoring.metric: mine.py imports beside_it, which is not installed. Nothing is imported "
        "from the current folder: install it, or name its folder in PYTHONPATH, as an absolute "
        "path."
    )


def test_metric_imports_from_a_folder_that_was_named(tmp_path):
    (tmp_path / "mine.py").write_text("import beside_it\nf = beside_it.f\n")
    (tmp_path / "beside_it.py").write_text("def f(source, reference, output):\n    return 3\n")
    code = (
        "from hawsweep.scoring.metrics import find_metric\nprint(find_metric('mine:f')('', '', ''))"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT.parent)])
    done = subprocess.run(
        child_command("-c", code),
        env={**child_environment(), "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3.0\n", done.stderr


# Settings of a repository that name a program, which ``{trap}`` is, for Git's comparing of files.
GIT_TRAPS = {
    "monitor": {"core.fsmonitor": "{trap}"},
    "filter": {"filter.trap.clean": "{trap}"},
    "required filter": {"filter.trap.clean": "{trap}", "filter.trap.required": "true"},
    "filter process": {"filter.trap.process": "{trap}"},
    "odd filter": {"filter.a=b.clean": "{trap}"},
    "hooks": {"core.hooksPath": "{hooks}"},
    "included": {"include.path": "{included}"},
}


def git(folder, *arguments):
    known = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", folder, *known, *arguments], check=True, capture_output=True)


@pytest.fixture
def trapped_repository(tmp_path, request):
    """A repository whose settings name a program, which leaves the file ``git.was-run`` beside."""
    folder, marker = tmp_path / "stranger", tmp_path / "git.was-run"
    folder.mkdir()
    trap, hooks, included = (tmp_path / name for name in ("trap", "hooks", "included"))
    trap.write_text(f"#!/bin/sh\ntouch '{marker}'\ncat\n")
    trap.chmod(0o755)
    hooks.mkdir()
    (hooks / "post-index-change").symlink_to(trap)
    included.write_text(f'[core]\n\tfsmonitor = "{trap}"\n')
    git(folder, "init")
    (folder / "data.txt").write_text("a")
    (folder / ".gitattributes").write_text("data.txt filter=trap\n")
    if request.param == "odd filter":
        (folder / ".gitattributes").write_text("data.txt filter=a=b\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    for key, value in GIT_TRAPS[request.param].items():
        git(folder, "config", key, value.format(trap=trap, hooks=hooks, included=included))
    marker.unlink(missing_ok=True)
    os.utime(folder / "data.txt", (1, 1))  # Git has to read it
    return folder, marker


@pytest.mark.parametrize("trapped_repository", GIT_TRAPS, indirect=True)
def test_state_of_a_strangers_repository_runs_none_of_its_programs(trapped_repository):
    folder, marker = trapped_repository
    state = git_state(folder)
    assert not marker.exists()
    assert state["dirty"] is False
    (folder / "data.txt").write_text("b")
    assert git_state(folder)["dirty"] is True
    assert not marker.exists()
    subprocess.run(["git", "-C", folder, "status"], check=False, capture_output=True)
    assert marker.exists()  # the trap is one
