import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawsweep.markdown import code, plain, table


def test_punctuation_of_a_text_is_markup_no_more():
    assert plain("**a** | <b>") == r"\*\*a\*\* \| \<b\>"


def test_text_is_one_line_without_what_steers_a_terminal_and_cut():
    assert plain("a\n\n# b\x1b[31m") == r"a \# b \[31m"
    assert plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize("text", ["http://evil.example", "www.evil.example", "a@evil.example"])
def test_no_address_can_be_made_a_link_of(text):
    # What GitHub's Markdown looks for, in the text without its backslashes.
    found = r"https?://[-.\w]|www\.|[-.\w+]@[-\w]"
    assert re.search(found, text)
    assert not re.search(found, plain(text).replace("\\", ""))


@given(st.text())
def test_text_of_any_kind_stays_in_its_cell(text):
    without_escaped = re.sub(r"\\[!-/:-@\[-`{-~]", "", plain(text))
    assert not re.search(r"[!-/:-@\[-`{-~\r\n]", without_escaped)


def test_code_with_backticks_and_bars_ends_where_it_ends():
    assert code("a`b|c") == r"``a`b\|c``"
    assert code("`a") == "`` `a ``"


def test_table_has_a_ruler_that_sets_numbers_to_the_right():
    assert table(["a", "b"], [["x", "1"]], right=(1,)) == "| a | b |\n| --- | ---: |\n| x | 1 |"
