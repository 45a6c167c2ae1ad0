import re
from html.parser import HTMLParser

from reported_study import NASTY, make_reported_study

from hawsweep.results.html_table import results_html
from hawsweep.results.leaderboard import TrialRow
from hawsweep.results.study_results import StudyResults


class Tags(HTMLParser):
    """The tags of a page, and its cells by row."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.rows = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert attrs == []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][-1] += data


def test_notebook_shows_the_recommendation_and_the_leaderboard(tmp_path):
    results = StudyResults(*make_reported_study(tmp_path))
    page = results._repr_html_()
    assert page.startswith(f"<p><b>{results.verdict().sentences[0]}</b></p><table>")
    found = Tags(page)
    assert found.rows[0][:4] == ["trial", "state", "lr", "rank"]
    assert len(found.rows) == len(results.leaderboard()) + 1
    used = next(row for row in found.rows if row[:2] == ["4", "use"])
    assert f"{results.best_value:.4f}" in used
    assert re.findall("<tr><th>(.*?)</th>", page) == ["trial", "4"]  # bold
    assert "" not in found.rows[0]


def test_texts_are_escaped_and_empty_columns_are_left_out():
    rows = [TrialRow("0", "complete", {"optimizer": f"{NASTY}\x1b\n"}, score=0.5)]
    page = results_html(NASTY, rows, use=None)
    found = Tags(page)
    assert found.tags == {"p", "b", "table", "tr", "th", "td"}
    title, row = found.rows
    assert title == ["trial", "state", "optimizer", "score"]
    assert row == ["0", "complete", f"{NASTY}\\x1b\\n", "0.5000"]


def test_study_without_trials_has_a_sentence_and_no_rows(tmp_path):
    study, place = make_reported_study(tmp_path, n_complete=0, is_tested=False)
    page = StudyResults(study, place)._repr_html_()
    assert page.startswith("<p><b>rates: No trial is complete yet.</b></p>")
