"""Kernels that were left in part, by a compiler that was killed, end no trial for good."""

import os
import shutil
import subprocess
import sys

import pytest

from hawsweep.machine import backend, compiled_code
from hawsweep.study.faults import of_exception

pytestmark = pytest.mark.skipif(
    backend.device_here() != "cpu" or shutil.which("g++") is None,
    reason="kernels are compiled on a CPU, with g++",
)
KERNEL = """
import mlx.core as mx
mx.set_default_device(mx.cpu)
print(mx.compile(lambda a, b: mx.exp(a) * b + a)(mx.ones((4,)), mx.ones((4,))))
"""


def compute(folder):
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-c", KERNEL]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def library(tmp_path):
    """A kernel that MLX compiled a while ago."""
    assert compute(tmp_path).returncode == 0
    [found] = tmp_path.rglob("*.so")
    return found


def make_old(path):
    then = path.stat().st_mtime - 2 * compiled_code._WRITTEN_S
    os.utime(path, (then, then))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_library_that_was_written_in_part_is_removed_and_compiled_again(tmp_path, library, share):
    whole = library.read_bytes()
    library.write_bytes(whole[: int(share * len(whole))])
    if share == 0:  # one without its sections' table may be loaded, or end the process
        failed = compute(tmp_path)
        assert failed.returncode == 1
        assert of_exception(RuntimeError(failed.stderr.splitlines()[-1])).kind == "compiled_code"
    compiled_code.remove_partial(tmp_path)
    assert library.exists()  # it may be one that is just being written
    make_old(library)
    compiled_code.remove_partial(tmp_path)
    assert not library.exists()
    assert compute(tmp_path).returncode == 0
    assert library.stat().st_size == len(whole)


def test_whole_libraries_and_other_files_stay(tmp_path, library):
    (tmp_path / "source.cpp").touch()
    for path in tmp_path.rglob("*"):
        make_old(path)
    before = sorted(tmp_path.rglob("*"))
    compiled_code.remove_partial(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
