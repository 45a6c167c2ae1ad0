import ctypes.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from hawsweep.machine.backend import mx

import pytest

from hawsweep.errors import BackendError
from hawsweep.machine import backend

on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere MLX's BLAS is fast")
with_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

COUNTING_BLAS = """
int n_calls = 0;
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                 int lda, const float *b, int ldb, float beta, float *c, int ldc) {
  n_calls++;
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      float sum = 0;
      for (int p = 0; p < k; p++)
        sum += (ta == 111 ? a[i * lda + p] : a[p * lda + i])
             * (tb == 111 ? b[p * ldb + j] : b[j * ldb + p]);
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
}
"""
# Which file of this process a symbol comes from, as the dynamic linker answers.
FILE_OF = """
import ctypes
class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("symbol", ctypes.c_char_p), ("address", ctypes.c_void_p)]
def file_of(name):
    info, process = Info(), ctypes.CDLL(None)
    process.dladdr(ctypes.cast(getattr(process, name), ctypes.c_void_p), ctypes.byref(info))
    return info.file.decode()
"""
PRODUCT = """
from hawsweep.machine.backend import mx
a, b = mx.arange(6.0).reshape(2, 3), mx.arange(12.0).reshape(3, 4)
product = (a @ b).tolist()
"""
EXPECTED_PRODUCT = [
    [sum((3 * i + p) * (4 * p + j) for p in range(3)) for j in range(4)] for i in range(2)
]


def python(code, *, expect_failure=False, **environment):
    """Run code in a process of its own; give what it prints as JSON, or its error output."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert bool(done.returncode) == expect_failure, done.stderr
    return done.stderr if expect_failure else json.loads(done.stdout)


def blas_dir(cache):
    return cache / f"code-{os.geteuid()}" / "blas"


def warnings_of(code):
    return (
        "import json, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    {code}\n"
        "    from hawsweep.machine.backend import blas\n"
        "    name = blas().name\n"
        "print(json.dumps([name, [str(w.message) for w in caught if 'BLAS' in str(w.message)]]))"
    )


def run_cli(*arguments):
    return (
        "import json, sys\n"
        "from click.testing import CliRunner\n"
        "from hawsweep.cli import main\n"
        f"result = CliRunner().invoke(main, {list(arguments)!r})\n"
        "assert result.exit_code == 0, result.output\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["--version"]])
def test_help_imports_no_large_library(arguments):
    loaded = set(python(run_cli(*arguments)))
    assert "click" in loaded
    large = {"mlx", "mlx_lm", "torch", "optuna", "transformers", "sentence_transformers", "numpy"}
    assert not loaded & large


def test_listing_studies_imports_neither_mlx_nor_torch(tmp_path):
    loaded = set(python(run_cli("list", "--studies-dir", str(tmp_path))))
    assert "optuna" in loaded
    assert not loaded & {"mlx", "mlx_lm", "torch", "transformers", "sentence_transformers"}


def test_process_that_watches_workers_loads_no_model_library():
    loaded = set(
        python(
            "import hawsweep.running.start, json, sys\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
        )
    )
    assert "optuna" in loaded
    assert not loaded & {"mlx", "mlx_lm", "torch", "transformers", "sentence_transformers"}


def test_blas_is_built_in_where_it_is_turned_off():
    assert python(warnings_of("pass"), HAWSWEEP_BLAS="off") == ["built-in", []]


@on_linux
def test_blas_path_that_cannot_be_loaded_is_refused(tmp_path):
    path = tmp_path / "none.so"
    error = python(
        "from hawsweep.machine.backend import mx", expect_failure=True, HAWSWEEP_BLAS=str(path)
    )
    assert f"BackendError: HAWSWEEP_BLAS={path} cannot be loaded" in error
    assert "Set it to a shared library with cblas symbols, to 'auto' or to 'off'" in error


@on_linux
def test_library_without_a_blas_is_refused():
    library = ctypes.util.find_library("m")
    error = python(
        "from hawsweep.machine.backend import mx", expect_failure=True, HAWSWEEP_BLAS=library
    )
    assert f"BackendError: HAWSWEEP_BLAS={library}" in error


@on_linux
@with_cc
def test_fast_blas_is_the_one_the_process_resolves(tmp_path):
    code = (
        "import json\nfrom hawsweep.machine.backend import blas, mx\n"
        "path = str(blas().path)\n"
        "files = {name: file_of(name) for name in ('cblas_sgemm', 'scipy_cblas_sgemm')}\n"
        "print(json.dumps([blas().name, path, files]))"
    )
    name, path, files = python(FILE_OF + code, HAWSWEEP_CACHE=str(tmp_path), HAWSWEEP_BLAS="auto")
    assert name == "scipy-openblas32"
    assert Path(path).is_file()
    # The shim has MLX's name for it and hands it on to the library's own.
    assert Path(files["cblas_sgemm"]).parent == blas_dir(tmp_path)
    assert os.path.samefile(files["scipy_cblas_sgemm"], path)


@on_linux
@with_cc
def test_mlx_calls_the_blas_loaded_before_it(tmp_path):
    source, library = tmp_path / "counting.c", tmp_path / "counting.so"
    source.write_text(COUNTING_BLAS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    code = (
        "import ctypes, json\nfrom hawsweep.machine.backend import blas\n"
        f"counter = ctypes.c_int.in_dll(ctypes.CDLL({str(library)!r}), 'n_calls')\n"
        "print(json.dumps([blas().name, str(blas().path), counter.value, product]))"
    )
    name, path, n_calls, product = python(PRODUCT + code, HAWSWEEP_BLAS=str(library))
    assert (name, path) == ("custom", str(library))
    assert n_calls > 0
    assert product == EXPECTED_PRODUCT


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_products_are_right_with_each_blas(choice):
    code = PRODUCT + "import json\nprint(json.dumps(product))"
    assert python(code, HAWSWEEP_BLAS=choice) == EXPECTED_PRODUCT


@on_linux
@with_cc
def test_shim_is_compiled_once(tmp_path):
    code = "import json\nfrom hawsweep.machine.backend import blas\nprint(json.dumps(blas().name))"
    first = python(code, HAWSWEEP_CACHE=str(tmp_path))
    (shim,) = blas_dir(tmp_path).iterdir()
    made = shim.stat().st_mtime_ns
    without_compiler = python(code, HAWSWEEP_CACHE=str(tmp_path), PATH="")
    assert first == without_compiler == "scipy-openblas32"
    assert [path.stat().st_mtime_ns for path in blas_dir(tmp_path).iterdir()] == [made]


@on_linux
def test_mlx_imported_before_is_warned_of_with_the_remedy():
    name, messages = python(warnings_of("import mlx.core"), HAWSWEEP_BLAS="auto")
    assert name == "built-in"
    (message,) = messages
    assert "MLX was imported before hawsweep, too late for a fast BLAS" in message
    assert "HAWSWEEP_BLAS=off hides this" in message


@on_linux
def test_no_fast_blas_is_warned_of_with_each_reason(tmp_path):
    hidden = "import ctypes.util; ctypes.util.find_library = lambda _: None"
    name, messages = python(
        warnings_of(hidden), HAWSWEEP_BLAS="auto", HAWSWEEP_CACHE=str(tmp_path), PATH=""
    )
    assert name == "built-in"
    (message,) = messages
    assert "No such file or directory: 'cc'" in message
    assert "no OpenBLAS among the system's libraries" in message
    assert "Install a C compiler and scipy-openblas32 (pip), or Debian's libopenblas0" in message


@pytest.mark.parametrize("device", ["metal", "cuda"])
def test_nothing_is_loaded_where_a_gpu_computes(monkeypatch, device):
    monkeypatch.setattr(backend, "device_here", lambda: device)
    assert backend.load_fast_blas() == backend.Blas("built-in")


@pytest.mark.parametrize(
    ("device", "remedy"),
    [
        ("cuda", "An MLX for CUDA needs NVIDIA's driver and free memory on the GPU; for the CPU"),
        ("cpu", "Install mlx again (pip)."),
    ],
)
def test_mlx_that_cannot_be_loaded_is_told_with_the_remedy(monkeypatch, device, remedy):
    def fail(_):
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(backend, "device_here", lambda: device)
    monkeypatch.setattr(backend.importlib, "import_module", fail)
    with pytest.raises(BackendError) as fault:
        backend.__getattr__("mx")
    told = "MLX cannot be loaded: libcuda.so.1: cannot open shared object file. "
    assert str(fault.value).startswith(told + remedy)


@pytest.fixture
def without_mlx(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.delitem(sys.modules, "mlx.core", raising=False)


def install_build(folder, name, n_bytes):
    """What pip leaves of a package with MLX's library; the file is as the last one left it."""
    about = folder / f"{name.replace('-', '_')}-0.32.4.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 0.32.4\n")
    (about / "RECORD").write_text(f"mlx/lib/libmlx.so,,{n_bytes}\n")
    library = folder / "mlx" / "lib" / "libmlx.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_bytes(bytes(n_bytes))


def test_device_is_known_by_what_is_installed(without_mlx, monkeypatch):
    assert (backend.device_here(), backend.builds_here()) == ("cpu", ["mlx-cpu"])
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert backend.device_here() == "metal"


@pytest.mark.parametrize(
    ("first", "last", "device"),
    [("mlx-cpu", "mlx-cuda-13", "cuda"), ("mlx-cuda-13", "mlx-cpu", "cpu")],
)
def test_of_two_builds_the_one_installed_last_is_in_use(
    without_mlx, tmp_path, monkeypatch, first, last, device
):
    install_build(tmp_path, first, 3)
    install_build(tmp_path, last, 5)
    monkeypatch.syspath_prepend(tmp_path)
    assert backend.builds_here() == [last, first]
    assert backend.device_here() == device


def test_mlx_that_is_loaded_is_asked_for_its_device(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    gpu = SimpleNamespace(cpu="cpu", default_device=lambda: "gpu")
    monkeypatch.setitem(sys.modules, "mlx.core", gpu)
    assert backend.device_here() == "cuda"


def test_cache_folder_is_the_users_unless_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path))
    assert backend.cache_dir() == tmp_path
    monkeypatch.delenv("HAWSWEEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert backend.cache_dir().name == "hawsweep"


def test_module_has_no_other_names():
    with pytest.raises(AttributeError, match="has no attribute 'np'"):
        _ = backend.np


def test_peak_memory_counts_since_the_reset():
    n_bytes = 10_000_000
    mx.eval(mx.zeros(n_bytes))
    backend.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.zeros(n_bytes // 4))
    assert n_bytes <= backend.peak_memory_bytes() - before < 1.1 * n_bytes


def test_seed_repeats_random_numbers():
    backend.seed(3)
    first = mx.random.normal((4,)).tolist()
    backend.seed(3)
    assert mx.random.normal((4,)).tolist() == first


def test_above_the_memory_limit_mlx_does_not_run_ahead():
    def peak_bytes():
        backend.reset_peak_memory()
        values = mx.ones((500, 1000))
        mx.eval(values)
        total = mx.array(0.0)
        for i in range(60):
            total = total + mx.sin(values * i).sum()
        return total.item(), backend.peak_memory_bytes()

    expected, running_ahead = peak_bytes()
    before = backend.limit_memory(1)
    try:
        result, waiting = peak_bytes()
    finally:
        backend.limit_memory(before)
    assert result == expected
    assert waiting < running_ahead
