import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from long_study import make_study

from hawsweep.cli import main
from hawsweep.study.place import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("completing") / "studies")
    make_study(made, 12)
    return made


def complete(words, cwd, **variables):
    """What is proposed for the last of some words, as bash is told: kind and text."""
    code = (
        "import json, sys\n"
        "import hawsweep.cli\n"
        "try:\n"
        "    hawsweep.cli.main(prog_name='hawsweep')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, **variables, "_HAWSWEEP_COMPLETE": "bash_complete"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, loaded = done.stdout.splitlines()
    large = {"mlx", "mlx_lm", "torch", "transformers", "sentence_transformers"}
    assert not large & set(json.loads(loaded))
    return [line.partition(",")[2] for line in lines if line.startswith("plain,")]


def test_names_of_studies_are_completed(place):
    here = place.studies_dir.parent
    for command in ("status", "stop", "show", "compare", "worker", "export", "report", "dashboard"):
        assert complete(["hawsweep", command, "lo"], here) == ["long"]
    assert complete(["hawsweep", "status", "x"], here) == []


def test_studies_are_found_where_they_are_kept(place, tmp_path):
    words = ["hawsweep", "status", "--studies-dir", str(place.studies_dir), "lo"]
    assert complete(words, tmp_path) == ["long"]
    variables = {"HAWSWEEP_STUDIES_DIR": str(place.studies_dir)}
    assert complete(["hawsweep", "status", "lo"], tmp_path, **variables) == ["long"]
    url = {"HAWSWEEP_STORAGE": f"sqlite:///{place.database_path}"}
    assert complete(["hawsweep", "status", "lo"], tmp_path, **url) == ["long"]
    elsewhere = {"HAWSWEEP_STORAGE": "postgresql://nobody@nowhere/none"}
    assert complete(["hawsweep", "status", "lo"], tmp_path, **elsewhere) == []


def test_numbers_of_the_studys_trials_are_completed(place):
    here = place.studies_dir.parent
    assert complete(["hawsweep", "show", "long", "1"], here) == ["1", "10", "11"]
    for command in ("compare", "export", "try"):
        assert complete(["hawsweep", command, "long", "--trial", "1"], here) == ["1", "10", "11"]
    assert complete(["hawsweep", "show", "other", "1"], here) == []


def test_names_of_sweeps_are_completed(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "lr-mine.yaml").write_text("trials: 1\n")
    for command in ("start", "plan", "validate", "preview"):
        assert complete(["hawsweep", command, "lr-"], tmp_path) == ["lr-mine", "lr-rank"]


def test_without_a_database_nothing_is_proposed_and_nothing_made(tmp_path):
    assert complete(["hawsweep", "status", ""], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_proposes_nothing(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "hawsweep.db").write_text("These are notes. " * 100)
    assert complete(["hawsweep", "status", ""], tmp_path) == []


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --")]
)
def test_script_is_the_shells(shell, mark):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert mark in done.output
    assert "_HAWSWEEP_COMPLETE" in done.output


def test_script_of_bash_is_one_it_takes():
    script = CliRunner().invoke(main, ["completion", "bash"]).output
    asked = f"{script}\ncomplete -p hawsweep"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("hawsweep")


def test_other_shell_is_refused():
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2
