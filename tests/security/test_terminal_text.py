"""Text from strangers: what it cannot do in a terminal, a log, a spreadsheet and a report."""

import csv
import io
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hostile_texts import ATTACKS, acts, is_harmless
from rich.console import Group
from rich.table import Table

from hawsweep.cli import main
from hawsweep.cli.common import print_csv, print_json
from hawsweep.errors import MemoryBudgetError, StudyError, told_error
from hawsweep.machine.output import visible_output
from hawsweep.text import visible, visible_line
from hawsweep.views.figure_style import shown
from hawsweep.views.terminal.text import Console, Text

PEACEFUL = (
    "ʻO ka ʻōlelo Hawaiʻi, nā kūpuna",
    "👩\u200d🌾 🏴\u200d☠️",
    "e\u0301 a\u0304",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\t",
)
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def printed(*parts, terminal=False):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, no_color=True)
    console.print(*parts)
    return out.getvalue()


def test_each_character_that_acts_is_shown_and_no_other():
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        is_shown = visible(character) != character
        assert is_shown == acts(character), hex(number)


@pytest.mark.parametrize("text", PEACEFUL)
def test_text_in_any_language_stays(text):
    assert visible_line(text) == text
    assert str(StudyError(text)) == text


@each_attack
def test_a_text_cannot_act_in_the_console(attack):
    for part in (attack, Text(attack), Text().append(attack), Text.assemble((attack, "bold"))):
        text = printed(part)
        assert is_harmless(text)
        assert text.startswith(visible_line(attack))


@each_attack
def test_a_cell_cannot_act_in_the_console(attack):
    table = Table(box=None)
    table.add_column("name")
    table.add_row(attack)
    assert visible_line(attack) in printed(Group(table))
    assert is_harmless(printed(Group(table)))


@each_attack
def test_own_colours_stay_and_a_strangers_are_shown(attack):
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system="standard").print(
        Text(attack, style="red")
    )
    assert out.getvalue() == f"\x1b[31m{visible_line(attack)}\x1b[0m\n"


def test_a_text_of_richs_own_cannot_act_either():
    from rich.text import Text as RichText

    assert printed(RichText("a\x1b[2Jb")) == "a\\x1b[2Jb\n"


@each_attack
def test_a_message_cannot_act(attack):
    fault = StudyError(f"The study {attack} is not here.", lines=[f"Known: {attack}"])
    assert is_harmless(str(fault))
    _, line = str(fault).split("\n")
    assert line.startswith("  Known: ")
    assert str(told_error("StudyError", str(fault))) == str(fault)


def test_a_message_with_lines_is_told_with_them():
    fault = MemoryBudgetError("Nothing fits:", lines=["a: 1 GB", "b: 2 GB"])
    assert str(fault) == "Nothing fits:\n  a: 1 GB\n  b: 2 GB"


@each_attack
def test_a_print_cannot_act(attack, capsys):
    with visible_output():
        print(attack.replace("\n", " "))
        print(attack.replace("\n", " "), file=sys.stderr)
    out, err = capsys.readouterr()
    assert is_harmless(out)
    assert is_harmless(err)
    assert visible(attack.replace("\n", " ")) in err


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stderr + done.stdout


@pytest.mark.parametrize("attack", ["line", "clear", "return"])
@pytest.mark.parametrize("where", ["process", "thread", "trial"])
def test_an_exception_takes_one_line_of_the_log(where, attack):
    raising = f"raise ValueError({ATTACKS[attack]!r})"
    code = {
        "process": f"m.make_output_visible(); exec({raising!r})",
        "thread": "import threading; m.make_output_visible(); "
        f"t = threading.Thread(target=exec, args=({raising!r},)); t.start(); t.join()",
        "trial": "m.make_output_visible()\ntry:\n"
        f"  raise KeyError({ATTACKS[attack]!r})\nexcept KeyError as f:\n"
        f"  try:\n    {raising}\n  except ValueError as g:\n    m.print_traceback(g)",
    }[where]
    text = run_python(f"import hawsweep.machine.output as m\n{code}")
    assert is_harmless(text)
    assert f"\nValueError: {visible_line(ATTACKS[attack])}\n" in text


def test_output_has_no_way_for_bytes_past_it():
    with visible_output():
        assert not hasattr(sys.stdout, "buffer")
        assert not hasattr(sys.stderr, "buffer")


def command_printing(print_it, *content):
    @main.command("print-it", hidden=True)
    def print_it_now():
        print_it(*content)

    try:
        return CliRunner().invoke(main, ["print-it"]).stdout
    finally:
        del main.commands["print-it"]


@each_attack
def test_json_is_harmless_and_says_the_same(attack):
    text = command_printing(print_json, {attack: [attack]})
    assert is_harmless(text)
    assert json.loads(text) == {attack: [attack]}


@each_attack
def test_a_cell_of_csv_cannot_act(attack):
    text = command_printing(print_csv, [{"name": attack, "other": {"a": attack}}])
    assert not any(map(acts, text))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["name"] == visible_line(attack)


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "-5", "＠x")


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_is_quoted(formula):
    text = command_printing(print_csv, [{formula: formula}])
    header, row = csv.reader(io.StringIO(text))
    assert header == row == [f"'{visible_line(formula)}"]


def test_numbers_in_csv_are_no_texts():
    text = command_printing(print_csv, [{"gain": -0.5, "n": -3, "none": None, "text": "a-b"}])
    assert text == "gain,n,none,text\n-0.5,-3,,a-b\n"


@each_attack
def test_a_hostile_message_of_a_command_takes_its_own_line(attack):
    @main.command("fail-it", hidden=True)
    def fail_it():
        raise StudyError(f"It is {attack}.")

    try:
        done = CliRunner().invoke(main, ["fail-it"])
    finally:
        del main.commands["fail-it"]
    assert done.exit_code == 1
    assert is_harmless(done.stderr.removeprefix("Error: "))
    assert done.stderr.count("\n") == 1


@each_attack
def test_a_figure_shows_what_would_turn_its_texts(attack):
    assert not any(map(acts, shown(attack)))
