"""A study's models, asked in a terminal, through a pipe, and by a program."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from screens import Screen
from tried_study import make_tried_study, save_model

from hawsweep.cli import main
from hawsweep.study.place import Place
from hawsweep.views.json_schema import OUTPUTS

HAWSWEEP = (sys.executable, "-m", "hawsweep.cli")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, tokenizer):
    return save_model(tmp_path_factory.mktemp("answering") / "model", tokenizer)


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_dir, chat_data_dir):
    place = Place(tmp_path_factory.mktemp("tried") / "studies")
    make_tried_study(place, model_dir, chat_data_dir)
    return place


def command(place, *words):
    return ["try", "tiny", f"--studies-dir={place.studies_dir}", *words]


def run(place, *words, typed=None):
    done = CliRunner().invoke(main, command(place, *words), input=typed)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_has_an_object_for_each_prompt(place):
    lines = run(place, "--prompt", "Aloha.", "--prompt", "Mahalo.", "--few-shot", "--json")
    found = [json.loads(line) for line in lines.splitlines()]
    for each in found:
        OUTPUTS["try"].validate_python(each)
        assert list(each["answers"]) == ["base", "few_shot", "trial"]
        assert each["answers"]["base"] != each["answers"]["trial"]
    assert [each["source"] for each in found] == ["Aloha.", "Mahalo."]
    assert (found[0]["study"], found[0]["trial"], found[0]["checkpoint"]) == ("tiny", 0, None)


def test_piped_prompts_are_answered_below_each_other(place, model_dir):
    text = run(place, typed="Aloha.\n\nMahalo.\n")
    assert text.endswith("\n")
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == (
        f"Trial 0 of tiny, and the untuned {model_dir}. No trial is recommended; this one "
        "scores best."
    )
    assert [line for line in lines if line.startswith("source")] == [
        "source   Aloha.",
        "source   Mahalo.",
    ]
    assert len([line for line in lines if line.startswith("base     ")]) == 2
    assert len([line for line in lines if line.startswith("trial 0  ")]) == 2


def test_given_trial_is_not_said_to_be_best(place):
    text = run(place, "--trial", "0", "--checkpoint", "12", "--prompt", "Aloha.")
    assert text.startswith("Trial 0 of tiny at iteration 12, and the untuned ")
    assert "recommended" not in text


def test_prompt_and_file_exclude_each_other(place):
    done = CliRunner().invoke(main, command(place, "--prompt", "a", "--file", "b"))
    assert done.exit_code == 2
    assert "Give --prompt or --file, not both." in done.output


def test_prompts_are_typed_until_an_empty_line_or_the_end(place):
    for end in ("\r", "\x04"):
        with Screen([*HAWSWEEP, *command(place)], 80, 24) as screen:
            screen.until("^>$")
            screen.type("Aloha kākou.\r")
            shown = screen.until(r"^> Aloha kākou\.", r"^base  ", r"^trial 0  ", r"^>$")
            assert "source" not in shown  # it stands above
            screen.type(end)
            assert screen.finish() == 0


def test_ctrl_c_ends_with_130(place):
    with Screen([*HAWSWEEP, *command(place)], 80, 24) as screen:
        screen.until("^>$")
        screen.process.send_signal(signal.SIGINT)
        assert screen.finish() == 130
        assert "Traceback" not in screen.text()


def test_torch_is_not_imported(place):
    code = (
        "import atexit, sys; from hawsweep.cli import run; "
        "atexit.register(lambda: print('torch' in sys.modules)); run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command(place, "--prompt", "Aloha.", "--json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["False"]
