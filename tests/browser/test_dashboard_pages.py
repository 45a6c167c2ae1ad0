import noted_study
import pytest
from noted_study import serving
from optuna.trial import TrialState
from playwright.sync_api import expect
from reported_study import make_reported_study

from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.views.dashboard.refresh import Refresher
from hawsweep.views.report.content import make_report
from hawsweep.views.report.page import report_page

EVIL = '<script>alert(1)</script><img src="http://evil.example/a.png"> ![b](http://evil.example/b)'
PLOTS = ["Learning curves", "Score against validation loss", "Memory: predicted and measured"]


@pytest.fixture(scope="module")
def swept(tiny_study):
    Refresher(open_storage(tiny_study), tiny_study).look()
    with serving(tiny_study) as server:
        yield server.url.rstrip("/")


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """A study with translations that would be more than text, and a failed trial."""
    place = Place(tmp_path_factory.mktemp("noted") / "studies")
    study = noted_study.make_study(place)
    noted_study.complete(study, place, 0.6, outputs=(EVIL, "www.evil.example a@evil.example"))
    trial, folder = noted_study.begin(study, place)
    (folder / "log.txt").write_text("Killed by <b>something</b>")
    trial.set_user_attr("reason", "it was <i>killed</i>")
    study.tell(trial, state=TrialState.FAIL)
    Refresher(open_storage(place), place).look()
    with serving(place) as server:
        yield server.url.rstrip("/")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A study with its report."""
    study, place = make_reported_study(tmp_path_factory.mktemp("reported"))
    page = report_page(make_report(study, place), study)
    (place.study_dir("rates") / "report.html").write_text(page, encoding="utf-8")
    Refresher(open_storage(place), place).look()
    with serving(place) as server:
        yield server.url.rstrip("/")


def test_study_is_listed_and_opens_with_its_plots(page, swept):
    page.goto(swept)
    page.get_by_text("1. tiny", exact=True).click()
    for title in PLOTS:
        expect(page.locator(".js-plotly-plot .gtitle", has_text=title)).to_be_visible()
    expect(page.get_by_text("chrf", exact=True).first).to_be_visible()


def test_study_note_tells_where_it_stands(page, swept):
    page.goto(f"{swept}/dashboard/studies/1/note")
    expect(page.get_by_text("Done: 3 trials (3 complete).")).to_be_visible()
    expect(page.locator("th", has_text="val loss")).to_be_visible()
    expect(page.get_by_text("hawsweep compare tiny")).to_be_visible()


def test_trial_shows_note_and_files(page, swept):
    page.goto(f"{swept}/dashboard/studies/1/trials?numbers=0")
    expect(page.locator("strong", has_text="chrf")).to_be_visible()
    expect(page.locator("code", has_text="lora_parameters.rank")).to_be_visible()
    expect(page.locator("th", has_text="this trial")).to_be_visible()
    for name in ("adapter.md", "config.yaml", "translations.jsonl"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()


def test_translations_open_as_a_table(page, noted):
    page.goto(f"{noted}/dashboard/studies/1/trials?numbers=0")
    card = page.get_by_text("translations.jsonl", exact=True).locator(
        "xpath=ancestor::*[button][1]"
    )
    card.locator("button").first.click()
    expect(page.get_by_role("columnheader", name="reference")).to_be_visible()
    expect(page.get_by_role("cell", name=EVIL)).to_be_visible()


def test_what_a_model_says_is_text_and_nothing_else(page, noted):
    page.goto(f"{noted}/dashboard/studies/1/trials?numbers=0")
    expect(page.get_by_text(EVIL.replace("//", "//\u2060"), exact=True)).to_be_visible()
    assert page.locator("[src*='evil'], [href*='evil']").count() == 0
    assert page.locator("script").count() == 1  # the dashboard's own
    page.goto(f"{noted}/dashboard/studies/1/note")
    expect(page.get_by_text("A sweep | of <b>two</b> kinds.")).to_be_visible()


def test_marks_in_a_report_are_saved_in_the_dashboard(page, reported):
    page.goto(f"{reported}/dashboard/studies/1/note")
    page.goto(reported + page.get_by_role("link", name="The report").get_attribute("href"))
    items = page.locator("#translations .item")
    items.nth(0).get_by_role("button", name="Right").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save 1 mark").click()
    assert saved.value.suggested_filename == "rates-marks.json"


def test_failed_trial_shows_why_and_its_log(page, noted):
    page.goto(f"{noted}/dashboard/studies/1/trials?numbers=1")
    expect(page.locator("p", has_text="Failed: it was <i>killed</i>.")).to_be_visible()
    expect(page.get_by_text("log.txt", exact=True)).to_be_visible()
