"""What pip installs, alone: built from the sources, in an environment without the checkout."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from hawsweep.machine.backend import cache_dir

import pytest
from warm_cache import copy_settled

ROOT = Path(__file__).parents[1]
SMALL = [
    "--trials=2",
    "--workers=1",
    "--set=train.iters=6",
    "--set=train.steps_per_eval=3",
    "--set=validation.max_examples=6",
    "--set=scoring={max_examples: 3, max_tokens: 6}",
    "--set=confirm.top=0",
]


def build(source, folder, *targets):
    asked = [each for target in targets for each in ("--target", target)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), *asked]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(*folders):
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout: which files are the sources' is not known")
    return set(listed.stdout.splitlines())


def test_wheel_holds_the_package_its_data_and_nothing_else(built):
    [wheel] = built.glob("*.whl")
    names = {name for name in names_in(wheel) if ".dist-info/" not in name}
    package = {name.removeprefix("src/") for name in tracked("src")}
    assert names == package | {f"hawsweep/{name}" for name in tracked("sweeps")}
    assert "hawsweep/py.typed" in names
    assert "hawsweep/sweeps/lr-rank.yaml" in names
    assert "hawsweep/data/phrasebook/train.jsonl" in names


def test_source_distribution_builds_the_same_wheel(built, tmp_path):
    [wheel], [archive] = built.glob("*.whl"), built.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    build(unpacked, tmp_path / "dist", "wheel")
    [again] = (tmp_path / "dist").iterdir()
    assert names_in(again) == names_in(wheel)
    for name in ("tests/conftest.py", "CHANGELOG.md", "LICENSE", "README.md"):
        assert (unpacked / name).is_file()


class Installed:
    """An environment with the wheel; the libraries are those of this one, hawsweep is not.

    Its home has nothing but what other tests have converted, measured and compiled so far, which
    takes minutes; commands run in an empty folder.
    """

    def __init__(self, folder, wheel):
        self.folder, self._bin = folder / "here", folder / "env" / "bin"
        venv.create(folder / "env", symlinks=True)
        pip = [sys.executable, "-m", "pip", f"--python={self._bin / 'python'}", "install"]
        options = ["--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, *options, str(wheel)], check=True)
        [packages] = (folder / "env" / "lib").glob("python3*/site-packages")
        # A line of a .pth file is a path alone: what .pth files there say, such as where an
        # editable hawsweep lies, is not read.
        (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        self.package = packages / "hawsweep"
        self.folder.mkdir()
        cache = folder / "home" / ".cache" / "hawsweep"
        (folder / "home").mkdir()
        copy_settled(cache_dir(), cache)
        unwanted = ("PYTHON", "HAWSWEEP_", "VIRTUAL_ENV", "XDG_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
        self._environment = {**kept, "HOME": str(folder / "home")}

    def run(self, program, *arguments, check=True):
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    [wheel] = built.glob("*.whl")
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_installed_package_is_the_wheel_and_has_its_own_sweeps(installed):
    code = (
        "import hawsweep, json, sys\n"
        "from hawsweep.data.load import load_data\n"
        "from hawsweep.spec.read import load_sweep, sweep_names\n"
        "splits = load_data(load_sweep('lr-rank').data)\n"
        "paths = {name: str(path) for name, path in sweep_names().items()}\n"
        "print(json.dumps([hawsweep.__file__, paths, len(splits.train), sys.path]))"
    )
    file, sweeps, n_records, path = json.loads(installed.run("python", "-c", code).stdout)
    assert Path(file) == installed.package / "__init__.py"
    assert {Path(each).parent for each in sweeps.values()} == {installed.package / "sweeps"}
    assert {"lr-rank", "gemma-lr-rank"} <= set(sweeps)
    lines = (
        (ROOT / "src/hawsweep/data/phrasebook/train.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert n_records == len(lines)
    assert not [each for each in path if Path(each).is_relative_to(ROOT / "src")]


def test_installed_command_says_its_version(installed):
    version = re.search(
        r'^__version__ = "(.*)"$', (ROOT / "src/hawsweep/__init__.py").read_text(), re.MULTILINE
    )
    said = installed.run("hawsweep", "--version").stdout
    assert said == f"hawsweep, version {version[1]}\n"


@pytest.mark.real
def test_installed_command_runs_a_sweep_from_an_empty_folder(installed):
    done = installed.run("hawsweep", "start", "lr-rank", *SMALL, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(installed.run("hawsweep", "status", "--json").stdout)["trials"]
    states = {row["label"]: row["state"] for row in rows}
    assert (states["0"], states["1"], states["base"]) == ("complete", "complete", "base")
    assert [path.name for path in installed.folder.iterdir()] == ["studies"]


@pytest.mark.real
def test_installed_command_writes_a_sweep_to_begin_with(installed):
    if installed.run("hawsweep", "init", "--help", check=False).returncode == 2:
        pytest.skip("there is no hawsweep init yet")
    asked = ["mine", "--data=phrasebook", "--model=smollm2-135m-instruct", "--hours=1"]
    done = installed.run("hawsweep", "init", *asked, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sweeps = json.loads(installed.run("hawsweep", "list", "--json").stdout)["sweeps"]
    assert sweeps["mine"] == "sweeps/mine.yaml"
    assert "settings begin" in installed.run("hawsweep", "plan", "mine").stdout
