"""From a table to an export: each command but the first is the one that the screen names next."""

import csv
import os
import re
import shlex
import subprocess

import pytest
from command import COMMAND

REGISTERS = ("formal", "casual", "church")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
N_ROWS = 300


@pytest.fixture
def folder(tmp_path):
    """A folder with a table alone: texts, translations, and the register of each."""
    with open(tmp_path / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("Hawaiian", "English", "register"))
        for number in range(N_ROWS):
            english = " ".join(DIGITS[int(digit)] for digit in f"{number:03d}")
            writer.writerow((f"ka puke {number}", f"book {english}", REGISTERS[number % 3]))
    return tmp_path


def run(folder, *words):
    """A command on a screen of 80 columns."""
    variables = {**os.environ, "COLUMNS": "80", "LETTERS_ALONE": "1"}
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=False, env=variables
    )


def follow(folder, command):
    """What a command shows that was named on a screen."""
    program, *words = shlex.split(command)
    assert program == "hawsweep"
    done = run(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def named(shown, command, how=""):
    """The line with a command of this name, and with what it does."""
    found = re.search(rf"\b(hawsweep {command}\b.*?)(?:  +|$){how}", shown, re.MULTILINE)
    assert found, shown
    return found[1].rstrip()


def test_table_becomes_an_export_by_what_the_screens_say_next(folder, tiny_model_dir):
    words = ["init", "--data", "pairs.csv", "--model", str(tiny_model_dir), "--hours"]
    begun = run(folder, *words, "0.02")
    shown = begun.stdout
    if begun.returncode:  # before the speed is measured here, it may seem too short
        enough = re.search(r"Give --hours ([\d.]+) or more", " ".join(begun.stderr.split()))
        assert enough, begun.stderr
        shown = follow(folder, shlex.join(["hawsweep", *words, enough[1]]))
    assert "Hawaiian to English, by their names; groups: register" in " ".join(shown.split())
    shown = follow(folder, named(shown, "start", "run it"))
    assert re.search(r"^Use trial \d+: ", shown, re.MULTILINE), shown
    table = shown[shown.index("By group of the test prompts") :]
    assert re.search(r"^group +prompts +base +trial \d+ +gain", table, re.MULTILINE)
    for register in REGISTERS:
        assert re.search(rf"^{register} +\d+ ", table, re.MULTILINE)
    shown = follow(folder, named(shown[shown.rindex("Next") :], "export"))
    assert "mlx_lm.generate --model studies/pairs/export/fused" in " ".join(shown.split())
    for name in ("adapters", "fused", "README.md"):
        assert (folder / "studies" / "pairs" / "export" / name).exists()
