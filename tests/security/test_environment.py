"""Commands in an environment that is broken: streams closed or full, variables of any value."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from reported_study import make_reported_study

from hawsweep.cli import main
from hawsweep.machine.output import visible_output

CHEAP = (["--help"], ["explain", "train.batch_size"], ["status", "rates"])
# The command line's redirections, and the exit code: what is closed is nobody's wish to read.
STREAMS = {
    ">&-": 0,
    "2>&-": 0,
    "<&-": 0,
    "<&- >&- 2>&-": 0,
    ">/dev/full": 1,
    ">/dev/full 2>&1": 1,
}
VARIABLES = (
    {"COLUMNS": "0"},
    {"COLUMNS": "1"},
    {"COLUMNS": "-5"},
    {"COLUMNS": "99999999999"},
    {"COLUMNS": "garbage"},
    {"COLUMNS": ""},
    {"LINES": "garbage"},
    {"TERM": "dumb"},
    {"TERM": ""},
    {"HOME": "/nonexistent"},
    {"HOME": None},
    {"TMPDIR": "/nonexistent"},
    {"TMPDIR": ""},
)
COMMANDS = [None, *sorted(main.commands)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of studies with the study ``rates``."""
    return make_reported_study(tmp_path_factory.mktemp("studied"))[1].studies_dir


def run(studies, command, streams="", **variables):
    """Run a command by a shell, its output visible where ``streams`` lets it through."""
    environment = {
        **os.environ,
        "HAWSWEEP_STUDIES_DIR": str(studies),
        "OPENBLAS_NUM_THREADS": "1",
        **variables,
    }
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "hawsweep.cli"]
        + command,
        capture_output=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def says_no_trace(done):
    said = done.stdout + done.stderr
    return not any(each in said for each in (b"Traceback", b"Exception ignored"))


@pytest.mark.parametrize("command", CHEAP[1:], ids=lambda each: each[0])
@pytest.mark.parametrize("streams", STREAMS)
def test_command_with_a_closed_or_full_stream_ends_without_a_traceback(studies, command, streams):
    if not os.path.exists("/dev/full") and "full" in streams:
        pytest.skip("this system has no /dev/full")
    done = run(studies, command, streams)
    assert says_no_trace(done), done.stderr
    assert done.returncode == STREAMS[streams]
    if streams == ">/dev/full":
        assert done.stderr == b"Error: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("command", CHEAP, ids=lambda each: each[0])
def test_command_whose_reader_is_gone_ends_quietly(studies, command):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run_into(studies, command, writer)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


def _run_into(studies, command, writer):
    return subprocess.run(
        [sys.executable, "-m", "hawsweep.cli", *command],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "HAWSWEEP_STUDIES_DIR": str(studies), "OPENBLAS_NUM_THREADS": "1"},
        timeout=300,
    )


def test_wrong_command_with_closed_standard_error_has_its_exit_code(studies):
    assert run(studies, ["nothing"], "2>&-").returncode == 2


def test_letters_in_the_locale_c_are_question_marks(studies):
    plain = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = run(studies, ["show", "rates", "0"], **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"?" in done.stdout


def test_warnings_as_errors_end_no_command(studies):
    done = run(studies, ["status", "rates"], PYTHONWARNINGS="error")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_variable_of_any_value_ends_no_command(studies, variables):
    done = CliRunner().invoke(
        main, ["status", "rates", f"--studies-dir={studies}"], env=variables, catch_exceptions=False
    )
    assert done.exit_code == 0
    assert done.output


@pytest.fixture(scope="module")
def helps_without_docstrings():
    """What each command's ``--help`` prints under ``python -OO``, by command."""
    program = (
        "import json\nfrom click.testing import CliRunner\nfrom hawsweep.cli import main\n"
        "def said(*words): return CliRunner().invoke(main, [*words, '--help']).output\n"
        "print(json.dumps([said(), *(said(name) for name in sorted(main.commands))]))"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-c", program],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return dict(zip(COMMANDS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_without_docstrings(helps_without_docstrings, name):
    words = ["--help"] if name is None else [name, "--help"]
    assert helps_without_docstrings[name] == CliRunner().invoke(main, words).output


def test_fault_of_the_output_is_told_from_that_of_a_file():
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        flush = write

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        with visible_output(), pytest.raises(OSError, match="No space") as caught:
            click.echo("x")
    assert type(caught.value).__name__ == "OutputError"
