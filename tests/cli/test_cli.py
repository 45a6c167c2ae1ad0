"""What all commands share."""

import os
import re
import subprocess
import sys

from click.testing import CliRunner
from noted_study import SOURCES, complete, make_study
from screens import Screen

from hawsweep.cli import main
from hawsweep.spec.read import sweep_names
from hawsweep.study.place import Place
from hawsweep.views.terminal.tables import test_text as text_of_test


def test_letters_a_terminal_has_not_are_question_marks(tmp_path):
    place = Place(tmp_path)
    complete(make_study(place), place, 0.6)
    command = ["show", "rates", "0", f"--studies-dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "hawsweep.cli", *command],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert SOURCES[0].encode("ascii", "replace") in done.stdout


def test_result_on_the_test_split_is_by_the_metric_of_the_study():
    base = {"score": 12.0, "similarity": 0.14, "chrf": 12.0, "bleu": 0.2}
    tuned = {"score": 48.0, "similarity": 0.64, "chrf": 48.0, "bleu": 31.7}
    test = {"trial": tuned, "base": base, "trial_number": 1, "n_prompts": 80, "n_opened": 1}
    assert "trial 1 [bold]48.0000[/bold], untuned 12.0000; chrF 48.0" in text_of_test(test)
    for summary in (tuned, base):  # an older study
        del summary["score"]
    assert "[bold]0.6400[/bold], untuned 0.1400" in text_of_test(test)


def test_commands_are_listed_by_kind_with_whole_sentences():
    said = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    kinds = [line.rstrip(":") for line in said.splitlines() if re.fullmatch(r"\w+:", line)]
    assert kinds == ["Options", "Prepare", "Run", "Look", "Use"]
    assert "..." not in said.replace("[ARGS]...", "")
    assert [name for names in main.kinds.values() for name in names] == list(main.commands)
    for name in main.commands:
        assert f"  {name} " in said
        helped = CliRunner().invoke(main, [name, "--help"], terminal_width=80).output
        assert "..." not in helped.partition("Options:")[2]


def test_errors_break_between_words():
    command = [sys.executable, "-P", "-m", "hawsweep.cli", "validate", "studies/nothing-here"]
    with Screen(command, 60, 24) as screen:
        assert screen.finish() == 1
    lines = [line.rstrip() for line in screen.text().splitlines() if line.strip()]
    assert lines[0].startswith("Error: There is no sweep 'studies/nothing-here'.")
    assert len(lines) > 2
    assert all(len(line) <= 60 for line in lines)
    named = " ".join(lines).split("Known: ")[1].split(". Write")[0].split(", ")
    assert named == sorted(sweep_names())
