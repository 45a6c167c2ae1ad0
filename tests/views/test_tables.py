import io
import math
from dataclasses import replace

import pytest
from rich.console import Console, Group
from rich.text import Text

from hawsweep.results.groups import GroupRow
from hawsweep.results.leaderboard import TrialRow
from hawsweep.results.study_results import EndOfStudy
from hawsweep.running.events import Event
from hawsweep.scoring.intervals import Interval
from hawsweep.views.terminal.live import SweepDisplay
from hawsweep.views.terminal.tables import end_picture, leaderboard_table
from hawsweep.views.terminal.verdict import groups_table, regression_lines

SETTINGS = {
    "learning_rate": 1.32e-3,
    "lora_parameters.rank": 32,
    "iters": 2000,
    "grad_accumulation_steps": 4,
}
COMPLETE = TrialRow(
    "12",
    "complete",
    SETTINGS,
    0.594,
    1800,
    *(0.6834, 0.6312, 0.7277),
    *(0.6834, 56.3, 30.1, 110, 1070000000, 7261),
)
BASE = TrialRow("base", "base", {}, 3.724, None, 0.107, chrf=12.1, bleu=0.2, time_s=25)
FEW_SHOT = TrialRow("4-shot base", "base", {}, score=0.2)
KNOWN = TrialRow("gpt-4o-mini", "reference", {}, score=0.8787)


def ended(folder, rows, options=()):
    """The end of a study with these rows and nothing else."""
    return EndOfStudy(
        name="x",
        options=list(options),
        rows=rows,
        test=None,
        verdict=None,
        confirmed=[],
        groups=[],
        self_check=None,
        samples=[],
        best_trial=None,
        study_dir=folder,
        trial_dir=None,
    )


def printed(picture, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(picture)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "title"), [(80, "conf."), (140, "confirmed")])
def test_columns_that_need_words_are_explained_below_the_table(tmp_path, width, title):
    end = ended(tmp_path, rows=[replace(COMPLETE, confirmed=0.7032), BASE])
    text = " ".join(printed(end_picture(end, "finished", width), width).split())
    head, _, said = text.partition("accum: grad_accumulation_steps; ")
    assert title in head
    assert "0.7032" in head
    assert "95 %: interval of the score; " in said
    assert f"{title}: mean score with new seeds" in said
    assert "at: iteration of the best evaluation; " in said
    assert ("tok/s: tokens trained per second" in said) is (width == 140)


@pytest.mark.parametrize("width", [80, 140])
def test_leaderboard_fits_and_shows_every_number(width):
    rows = [COMPLETE, FEW_SHOT, BASE, KNOWN]
    lines = printed(leaderboard_table(rows, width), width).splitlines()
    assert max(map(len, lines)) <= width
    for text in ("12", "complete", "1.32e-03", "32", "2000", "0.594", "1800", "0.6834"):
        assert text in lines[1]
    for text in ("56.3", "110", "1.07", "2:01:01"):
        assert (text in lines[1]) is (width == 140)
    assert (".63-.73" if width == 80 else "0.631-0.728") in lines[1]
    assert lines[2].split()[:2] == ["4-shot", "base"]
    assert lines[3].split()[0] == "base"
    assert "gpt-4o-mini" in lines[4]
    assert "elsewhere: not measured here" in lines[5]


WIDTHS = (40, 60, 80, 90, 100, 110, 120, 140)


@pytest.mark.parametrize("more", [{}, {"model": "mlx-community/gemma-3-4b-it-4bit"}])
def test_columns_go_whole_until_the_table_fits(more):
    settings = {**more, **SETTINGS, "lr_schedule.name": "cosine"}
    first = replace(COMPLETE, settings=settings, confirmed=0.7032)
    other = replace(first, label="3", settings={**settings, **dict.fromkeys(more, "other")})
    rows = [first, other, FEW_SHOT, BASE]
    shown = []
    for width in WIDTHS:
        table = leaderboard_table(rows, width, use=12)
        lines = printed(table, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        used = next(line.split() for line in lines if line.split()[:2] == ["12", "use"])
        whole = {"1.32e-03", "32", "2000", "4", "cosine", "0.594", "1800", "0.6834", "0.7032"}
        whole |= {"0.631-0.728", ".63-.73", "56.3", "110", "1.07", "2:01:01"}
        numbers = set(used[2:]) - set(used[2:3] if more else ())
        assert numbers <= whole | {"gemma-3-4", "mlx-commu"}
        assert "0.6834" in numbers
        shown.append(len(table.columns))
    assert shown == sorted(shown)
    assert shown[0] < shown[-1]


def test_end_without_any_complete_trial_says_how_to_go_on(tmp_path):
    end = ended(tmp_path, rows=[BASE], options=["--studies-dir=else where"])
    text = printed(end_picture(end, "timeout", 140), 140)
    assert "The time is up. The same command goes on." in text
    assert "export" not in text
    assert "hawsweep dashboard x '--studies-dir=else where'" in text


def test_plain_display_says_each_event_in_a_line():
    console = Console(file=io.StringIO(), width=140)
    with SweepDisplay(console, n_trials=2) as display:
        display(Event("study", values={"name": "lr-rank", "is_new": True, "finished": 0}))
        for worker in (0, 1):
            ready = {"n_train": 10, "n_valid": 2, "n_truncated": 3, "n_dropped": 5, "n_empty": 4}
            ready["warnings"] = ["[eos] is added"]
            display(Event("ready", worker, ready))
        display(Event("trial_start", 0, {"number": 0, "settings": SETTINGS}))
        ended = {"number": 0, "state": "pruned", "val_loss": 2.5, "reason": "behind [the] median"}
        display(Event("trial_end", 0, ended))
        display(Event("died", 1, {"reason": "the worker died by SIGKILL"}))
    lines = console.file.getvalue().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "New study lr-rank",
        "Training on 10 examples, validating on 2; 4 left out: nothing to learn in them; "
        "1 left out: nothing to learn within max_seq_length; 2 truncated at max_seq_length",
        "`hawsweep validate NAME` says how long they are; a higher max_seq_length needs a new "
        "study (--study NEW)",
        "[eos] is added",
        "trial 0 starts: lr 1.32e-03  rank 32  iters 2000  accum 4",
        "trial 0   pruned, val loss 2.500: behind [the] median",
        "the worker died by SIGKILL; starting another",
    ]


def test_groups_that_lost_are_named():
    rows = [
        GroupRow("proverb", 9, 0.5, 0.4, Interval(-0.1, -0.15, -0.05)),
        GroupRow("[place]", 3, 0.5, 0.49, Interval(-0.01, -math.inf, math.inf)),
        GroupRow("past", 20, 0.5, 0.9, Interval(0.4, 0.3, 0.5)),
    ]
    text = printed(Group(groups_table(rows), *regression_lines(rows)), 140)
    assert "It scores lower in proverb (-0.100 on 9 prompts).\n" in text
    assert "+0.300 to +0.500" in text
    assert "inf" not in text
    assert regression_lines(rows[2:]) == []


@pytest.mark.parametrize("is_terminal", [False, True])
def test_runs_with_new_seeds_are_shown_by_the_trial_they_confirm(is_terminal):
    console = Console(file=io.StringIO(), width=140, force_terminal=is_terminal)
    with SweepDisplay(console, n_trials=2) as display:
        about = {"number": 0, "settings": SETTINGS, "confirms": 7, "seed": 2}
        display(Event("confirm_start", 0, about))
        display(Event("iteration", 0, {"iteration": 3, "iters": 9}))
        display(Event("scoring", 0, {"n_prompts": 40}))
        ended = {"state": "complete", "score": 0.7032, "reason": None, "val_loss": 0.6}
        display(Event("confirm_end", 0, {**about, **ended}))
        died = {"number": 1, "state": "fail", "reason": "the worker died by SIGKILL"}
        display(Event("confirm_end", 0, died))
        display(Event("test_start", 0, {"number": 7}))
        display(Event("retention_start", 0, {"number": 7, "n_prompts": 60}))
    text = console.file.getvalue()
    assert "trial 7" in text
    assert ("trial 7 and base: translating the test split" in text) is (not is_terminal)
    doing = "trial 7 and base: answering 60 questions of retention"
    if is_terminal:
        doing = "answering 60 questions of retention, as does the base"
    assert doing in Text.from_ansi(text).plain
    assert "confirming run with seed 2, score 0.7032" in Text.from_ansi(text).plain
    assert "SIGKILL" in text
    assert ("trial 7 confirming run with seed 2 starts" in text) is (not is_terminal)
    assert "0/2 trials" in text or not is_terminal  # they are no trials of the study
