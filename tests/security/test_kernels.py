"""Compiled code that is loaded into processes: only from a folder of the user's own."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sweep import tiny_sweep

from hawsweep.errors import BackendError, ExportError, HawsweepError
from hawsweep.export import fuse
from hawsweep.machine import backend, compiled_code
from hawsweep.machine.compiled_code import check_room, own_folder
from hawsweep.planning import calibration
from hawsweep.running.start import run_sweep
from hawsweep.spec.sweep import SweepSpec

on_a_cpu = pytest.mark.skipif(
    backend.device_here() != "cpu" or platform.system() != "Linux" or shutil.which("cc") is None,
    reason="only there MLX compiles with g++",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
KERNEL = "mx.eval(mx.compile(lambda x: mx.exp(x) * x + 1)(mx.array([1.0, 2.0])))"
MINE = f"code-{os.geteuid()}"


def python(code, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def planted(tmp_path):
    """A temporary folder where another user has put libraries with the names of MLX's kernels."""
    folder, marker = tmp_path / "shared", tmp_path / "was-loaded"
    folder.mkdir()
    python(f"import mlx.core as mx\n{KERNEL}", TMPDIR=str(folder))
    source = tmp_path / "planted.c"
    source.write_text(
        "#include <fcntl.h>\n"
        f'__attribute__((constructor)) void f(void) {{ creat("{marker}", 0600); }}\n'
    )
    libraries = list(folder.rglob("*.so"))
    assert libraries
    for library in libraries:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return folder, marker


@on_a_cpu
def test_planted_kernel_is_not_loaded(planted, tmp_path):
    folder, marker = planted
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cache = tmp_path / "cache"
    code = f"from hawsweep.machine.backend import mx\n{KERNEL}"
    python(code, TMPDIR=str(folder), HAWSWEEP_CACHE=str(cache))
    assert not marker.exists()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert list((cache / MINE / "mlx").rglob("*.so"))
    assert (cache / MINE).stat().st_mode & 0o777 == 0o700


@on_a_cpu
def test_temporary_files_of_python_stay_in_their_folder(tmp_path):
    code = (
        "from hawsweep.machine.backend import mx\nimport os, tempfile\n"
        "print(tempfile.gettempdir())\nprint(os.environ['TMPDIR'])"
    )
    said = python(code, TMPDIR=str(tmp_path), HAWSWEEP_CACHE=str(tmp_path / "cache"))
    assert said.splitlines() == [str(tmp_path), str(tmp_path / "cache" / MINE)]


@on_a_cpu
def test_fusing_has_the_folder_of_its_own_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    seen = {}

    def run(command, *, env, **_):
        seen.update(env)
        return subprocess.CompletedProcess(command, 1, "", "no")

    monkeypatch.setattr(fuse.subprocess, "run", run)
    with pytest.raises(ExportError):
        fuse.run_fuse(tmp_path, tmp_path, tmp_path, dequantize=False, trust_remote_code=False)
    assert seen["TMPDIR"] == str(tmp_path / "cache" / MINE)


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o2775, 0o1777])
def test_folder_is_made_private_whatever_umask_and_cache(mode, tmp_path):
    tmp_path.chmod(mode)
    before = os.umask(0)
    try:
        folder = own_folder(tmp_path)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert own_folder(tmp_path) == folder


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o740, 0o755, 0o770, 0o777, 0o500])
def test_folder_of_another_mode_is_refused(mode, tmp_path):
    (tmp_path / MINE).mkdir()
    (tmp_path / MINE).chmod(mode)
    with pytest.raises(BackendError) as caught:
        own_folder(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / MINE}, where compiled code is kept, has the mode {mode:04o}, must be 0700: "
        "another user may have changed what is run. Remove it, or set HAWSWEEP_CACHE to a folder "
        "of your own."
    )


@as_root
def test_folder_of_another_user_is_refused(tmp_path):
    (tmp_path / MINE).mkdir(0o700)
    os.chown(tmp_path / MINE, 12345, 12345)
    with pytest.raises(BackendError, match=r"belongs to another user\. Remove it, or set HAWSWEEP"):
        own_folder(tmp_path)


@pytest.mark.parametrize("target", ["private", "missing", "file"])
def test_link_in_its_place_is_refused(target, tmp_path):
    (tmp_path / "private").mkdir(0o700)
    (tmp_path / "file").touch()
    (tmp_path / MINE).symlink_to(tmp_path / target)
    with pytest.raises(BackendError, match=r"is no folder|cannot be made: File exists"):
        own_folder(tmp_path)


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_file_in_its_place_is_refused(make, tmp_path):
    make(tmp_path / MINE)
    with pytest.raises(BackendError, match=r"cannot be made: File exists\. Set HAWSWEEP_CACHE to"):
        own_folder(tmp_path)


@pytest.mark.parametrize(("mode", "is_refused"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_cache_in_which_every_user_may_rename_folders_is_refused(mode, is_refused, tmp_path):
    (tmp_path / "cache" / MINE).mkdir(0o700, parents=True)
    (tmp_path / "cache").chmod(mode)
    fault = compiled_code.fault_of(tmp_path / "cache" / MINE)
    assert (fault is not None) == is_refused
    if fault is not None:
        assert f"lies in {tmp_path / 'cache'}, where every user can put another folder" in fault


@pytest.mark.parametrize("name", ['a"; touch x; "', "$(touch x)", "`touch x`", "a\\", "$HOME"])
def test_path_that_a_shell_would_obey_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=r"which a shell would obey\. Set HAWSWEEP_CACHE to"):
        own_folder(tmp_path / name)


@on_a_cpu
@pytest.mark.parametrize("name", ["a b", "it's", "a;b", "&", "ʻōlelo", "a\nb", "-x", "*", "(a)"])
def test_kernel_is_compiled_in_a_folder_of_any_other_name(name, tmp_path):
    code = f"from hawsweep.machine.backend import mx\n{KERNEL}"
    python(code, HAWSWEEP_CACHE=str(tmp_path / name), HAWSWEEP_BLAS="off")
    assert list((tmp_path / name / MINE / "mlx").rglob("*.so"))


def missing(folder):
    return folder / "missing", "No such file or directory"


def file(folder):
    (folder / "file").touch()
    return folder / "file", "Not a directory"


@pytest.mark.parametrize("variable", ["TMPDIR", "TEMP", "TMP"])
@pytest.mark.parametrize("make", [missing, file])
def test_temporary_folder_that_cannot_be_written_is_named(make, variable, tmp_path, monkeypatch):
    path, reason = make(tmp_path)
    for each in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(BackendError) as caught:
        check_room(tmp_path)
    assert str(caught.value) == (
        f"The temporary folder, {path}, cannot be written: {reason}. Make room there, or set "
        "TMPDIR to another folder that can be written."
    )


def test_no_temporary_folder_at_all_is_said(tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    for each in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(compiled_code.tempfile, "gettempdir", none)
    with pytest.raises(BackendError, match=r"found in \['/tmp'\]\. Make room in one of them, or"):
        check_room(tmp_path)


@pytest.fixture
def no_room():
    """Files cannot grow beyond some kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_full_folder_is_named(tmp_path):
    with pytest.raises(BackendError, match=f"{tmp_path}, cannot be written: File too large. Make"):
        check_room(tmp_path)


@on_a_cpu
@pytest.mark.parametrize("fault", ["TMPDIR", "HAWSWEEP_CACHE"])
def test_start_and_calibration_find_the_folder_before_they_measure(
    fault, tmp_path, tiny_model_dir, chat_data_dir, monkeypatch
):
    def measure(*_, **__):
        raise AssertionError("it was measured")

    monkeypatch.setattr(calibration, "measure", measure)
    (tmp_path / "cache" / MINE).mkdir(parents=True)
    (tmp_path / "cache" / MINE).chmod(0o755 if fault == "HAWSWEEP_CACHE" else 0o700)
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    if fault == "TMPDIR":
        monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    words = f"{tmp_path / 'gone'}, cannot be" if fault == "TMPDIR" else "must be 0700"
    with pytest.raises(BackendError, match=words):
        calibration.calibrate(tiny_model_dir)
    spec = SweepSpec.model_validate(tiny_sweep(tiny_model_dir, chat_data_dir))
    with pytest.raises(HawsweepError, match=words):
        run_sweep(spec, "x", studies_dir=tmp_path / "studies")
