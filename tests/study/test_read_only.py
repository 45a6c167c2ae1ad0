"""An archive of studies can be looked at, and is not written."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from reported_study import make_reported_study

# Root without the right to write what is closed; other users have none.
OBEDIENT = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
LOOKS = (
    ["list"],
    ["status", "rates"],
    ["show", "rates"],
    ["compare", "rates"],
    ["report", "rates", "--markdown"],
    ["report", "rates", "--output", "{out}/page.html"],
)
CODE = """
import sys
from click.testing import CliRunner
from hawsweep.cli import main
for line in sys.stdin:
    done = CliRunner().invoke(main, line.split())
    print(done.exit_code, line.strip(), done.stdout.count("rates"), flush=True)
    print(done.stderr, file=sys.stderr, flush=True)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
"""


pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere"
)


def state(folder):
    return {
        str(each.relative_to(folder)): (each.stat().st_mtime_ns, each.stat().st_size)
        for each in [folder, *folder.rglob("*")]
    }


def close(folder):
    for each in [folder, *folder.rglob("*")]:
        each.chmod(stat.S_IMODE(each.stat().st_mode) & 0o555 | 0o444)


def run_there(root, commands):
    """What commands say of the archive, run by a user who may not write there."""
    (root / "out").mkdir()
    lines = "\n".join(
        " ".join([*command, f"--studies-dir={root}/studies"]).format(out=root / "out")
        for command in commands
    )
    return subprocess.run(
        [*OBEDIENT, sys.executable, "-c", CODE],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )


def make_archive(folder, sides):
    """A copy of studies that lie in a database with these files of SQLite's beside it."""
    _, place = make_reported_study(folder / "made")
    if not sides:
        with closing(sqlite3.connect(place.database_path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(place.studies_dir, folder / "studies")
    for side in {"-wal", "-shm"}.difference(sides):
        (folder / "studies" / f"hawsweep.db{side}").unlink()
    close(folder / "studies")
    return folder / "studies"


@pytest.mark.parametrize("sides", [(), ("-wal", "-shm")])
def test_archive_is_shown_and_not_written(tmp_path, sides):
    studies = make_archive(tmp_path, sides)
    before = state(studies)
    done = run_there(tmp_path, LOOKS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0"] * len(LOOKS), done.stdout + done.stderr
    assert (tmp_path / "out" / "page.html").stat().st_size > 10_000
    assert state(studies) == before


def test_archive_with_half_of_a_log_says_where_it_can_be_read(tmp_path):
    make_archive(tmp_path, ["-wal"])
    done = run_there(tmp_path, [["status", "rates"]])
    assert done.stdout.startswith("1 ")
    assert "copy the folder to where it can be written" in done.stderr


def test_archive_is_neither_stopped_nor_started_nor_given_a_report(tmp_path):
    studies = make_archive(tmp_path, ())
    before = state(studies)
    done = run_there(tmp_path, [["stop", "rates"], ["worker", "rates"], ["report", "rates"]])
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1"] * 3
    assert done.stderr.count("hawsweep.db cannot be written.") == 2
    assert "report.html cannot be written" in done.stderr
    assert "Give another path with --output" in done.stderr
    assert state(studies) == before
