"""The report as a browser shows it: alone, drawn, legible in both themes, on a phone, on paper."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from reported_study import make_reported_study

from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study
from hawsweep.views.report.content import make_report
from hawsweep.views.report.page import report_page

PHONE = {"width": 390, "height": 844}
PLOTS = (
    *("scores", "history", "curves", "importance", "slices", "parallel", "price", "agreement"),
    "memory",
)
# WCAG 2.2, level AA: of texts, and of what a picture is read by.
TEXT_CONTRAST, PICTURE_CONTRAST = 4.5, 3.0
COLORS = """() => {
  const solid = (at) => {
    for (; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)" && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const has_text = (at) => [...at.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  for (const at of document.querySelectorAll("body *")) {
    const box = at.getBoundingClientRect();
    if (at.closest("script, style, noscript") || !box.width || !has_text(at)) continue;
    const style = getComputedStyle(at);
    const color = at.closest("svg") ? style.fill : style.color;
    found.push([at.textContent.trim().slice(0, 40), color, solid(at)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    study, place = make_reported_study(folder)
    path = folder / "report.html"
    path.write_text(report_page(make_report(study, place), study), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def watched_page(browser):
    """Give pages that note what they complain of and ask for: ``watched_page(**context)``."""

    @contextmanager
    def watched(**options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on(
            "console",
            lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda fault: page.complaints.append(str(fault)))
        page.on("request", lambda asked: page.requests.append(asked.url))
        try:
            yield page
        finally:
            context.close()

    return watched


@pytest.fixture
def show(watched_page, address):
    """Open the report and wait until it is drawn."""
    opened = []

    def shown(**options):
        manager = watched_page(**options)
        page = manager.__enter__()
        opened.append(manager)
        page.goto(address)
        page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return page

    yield shown
    for manager in opened:
        manager.__exit__(None, None, None)


def wait_until(page, condition):
    """Wait until an expression is true; the page's policy keeps Playwright's own waiting out."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def luminance(color):
    channels = [int(float(each)) / 255 for each in re.findall(r"[\d.]+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_and_white_is_the_highest():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)


def test_page_asks_for_nothing_and_has_nothing_to_complain_of(show, address):
    page = show()
    assert page.complaints == []
    assert [url for url in page.requests if url != address and not url.startswith("data:")] == []
    assert page.title().startswith("rates: Use trial ")


def test_every_plot_is_drawn(show):
    page = show()
    for name in PLOTS:
        plot = page.locator(f"#plot-{name}")
        assert plot.locator(".main-svg").count() >= 1, name
        drawn = plot.locator(".point, .points path, .js-line").count()
        assert drawn >= 1, name
    assert page.locator("#plot-scores .errorbar").count() == 10  # nine trials and the base
    curves = page.locator("#plot-curves .scatterlayer .js-line")
    assert curves.count() == 10  # and one that was pruned
    assert page.locator("#plot-agreement .point").count() == 10  # nine trials and the base
    assert page.locator("#plot-slices .xaxislayer-above").count() == 4


def test_point_tells_its_trial_and_picture_is_kept(show):
    page = show()
    plot = page.locator("#plot-agreement")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot-agreement .hoverlayer text")
    said = plot.locator(".hoverlayer").text_content()
    assert re.match(r"trial \d, complete", said)
    assert "optimizer " in said
    with page.expect_download() as kept:
        plot.locator("[data-title*='ownload']").click()
    assert kept.value.suggested_filename == "hawsweep-agreement.png"
    assert page.complaints == []


def test_texts_of_models_run_nothing(show):
    page = show()
    assert "stolen" not in page.title()
    assert page.locator("main img").count() == 0
    assert page.locator("script").count() == 4


def test_scripts_that_are_not_the_page_s_own_are_refused(show):
    page = show()
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in page.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible(show, scheme):
    page = show(color_scheme=scheme)
    texts = page.evaluate(COLORS)
    assert len(texts) > 300
    page_color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(page_color) < 0.05) == (scheme == "dark")
    faint = [each for each in texts if contrast(each[1], each[2]) < TEXT_CONTRAST]
    assert faint == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_drawn_is_seen(show, scheme):
    page = show(color_scheme=scheme)
    colors = page.evaluate(
        "() => [...document.querySelectorAll('path.js-line, path.point, .point path')]"
        ".map((each) => { const style = getComputedStyle(each);"
        " return style.fill === 'none' || each.matches('.js-line') ? style.stroke : style.fill; })"
    )
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(colors) > 60
    faint = {each for each in colors if contrast(each, background) < PICTURE_CONTRAST}
    assert faint == set()


def test_theme_is_changed_by_its_button(show):
    page = show(color_scheme="light")
    ink = "getComputedStyle(document.querySelector('#plot-scores .xtick text')).fill"
    light = page.evaluate(ink)
    button = page.locator("#theme")
    button.click()
    assert button.text_content() == "theme: light"
    button.click()
    assert button.text_content() == "theme: dark"
    wait_until(page, f"{ink} !== {light!r}")
    assert luminance(page.evaluate(ink)) > luminance(light)
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_plots_follow_the_system_s_theme(show):
    page = show(color_scheme="light")
    ink = "getComputedStyle(document.querySelector('#plot-scores .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{ink} !== {light!r}")


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_is_wider_than_the_screen(show, width):
    page = show(viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter((each) =>"
        " !each.closest('.scroll, .wide, pre, svg, .plot') && each.getBoundingClientRect().width"
        " && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML)"
    )
    assert beyond == []


def test_plots_are_as_wide_as_a_phone_or_scroll_in_their_frame(show):
    page = show(viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in PLOTS:
        frame = page.locator(f".plot:has(#plot-{name})").bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= PHONE["width"]


def test_contents_lead_to_every_section(show):
    page = show()
    links = page.locator("nav a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    sections = page.locator("main > [id]").evaluate_all("all => all.map((s) => '#' + s.id)")
    assert links == sections


def test_recommendation_facts_and_scale_are_on_the_first_screen(show):
    page = show(viewport={"width": 1280, "height": 900})
    for first in ("h1", ".facts", ".scale"):
        box = page.locator(first).bounding_box()
        assert box["y"] + box["height"] < 900, first
    assert page.locator(".scale .trial .n").text_content().split() == [
        "0.6100",
        "95",
        "%",
        "0.500-0.700",
    ]
    dots = [box["x"] for box in boxes(page, ".scale .dot")]
    assert dots == sorted(dots, reverse=True)  # trial, with examples, untuned


def boxes(page, selector):
    return [each.bounding_box() for each in page.locator(selector).all()]


@pytest.mark.parametrize("width", [390, 1280])
def test_texts_of_the_scale_are_beside_one_another(show, width):
    page = show(viewport={"width": width, "height": 844})
    texts = page.locator(".scale > div > span:not(.track, .between), .between span")
    found = [each.bounding_box() for each in texts.all() if each.text_content()]
    assert len(found) == 3 * 2 + 2
    for n, one in enumerate(found):
        assert one["x"] >= 0
        assert one["x"] + one["width"] <= width
        for other in found[n + 1 :]:
            is_beside = (
                one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            )
            is_above = (
                one["y"] + one["height"] <= other["y"] + 1
                or other["y"] + other["height"] <= one["y"] + 1
            )
            assert is_beside or is_above


def test_phone_has_large_texts_and_the_score_in_sight(show):
    page = show(viewport=PHONE, has_touch=True, is_mobile=True)
    small = page.evaluate(
        "() => [...document.querySelectorAll('body *')].filter((each) =>"
        " !each.closest('svg, script, style, noscript') && "
        " [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim())"
        " && parseFloat(getComputedStyle(each).fontSize) < 16).map((each) => each.outerHTML)"
    )
    assert small == []
    score = page.locator("#trials tbody tr").first.locator("td").nth(1)
    assert re.fullmatch(r"0\.\d{4}", score.text_content())
    box = score.bounding_box()
    assert box["x"] + box["width"] <= PHONE["width"]


def shown_items(page):
    return page.locator("#translations .item:visible").count()


def test_translations_are_found_by_text_and_group(show):
    page = show()
    assert shown_items(page) == 16
    page.get_by_label("find in translations").fill("BOOK 7")
    assert shown_items(page) == 2  # one is the near miss of book 2
    assert page.locator(".flag:visible").text_content() == "near miss: another number"
    page.get_by_label("group").select_option("verbs")
    assert shown_items(page) == 1
    assert page.locator(".count").text_content() == "1 of 16"
    page.get_by_label("find in translations").fill("")
    assert shown_items(page) == 8


def test_of_many_translations_some_are_shown_and_all_are_found(watched_page, tmp_path, monkeypatch):
    monkeypatch.setattr("hawsweep.views.report.page._N_SHOWN", 5)
    study, place = make_reported_study(tmp_path)
    path = tmp_path / "report.html"
    path.write_text(report_page(make_report(study, place), study), encoding="utf-8")
    with watched_page() as page:
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")
        assert page.locator(".count").text_content() == "5 of 16"
        gains = page.locator("#translations .item:visible .gain").all_text_contents()
        assert gains[0].startswith("+0.880")
        assert gains[-1].startswith("-0.110")  # the largest loss
        page.get_by_label("find in translations").fill("book")
        assert shown_items(page) == 16
        page.get_by_label("find in translations").fill("")
        page.get_by_label("all 16").check()
        assert shown_items(page) == 16


def test_marks_are_kept_and_saved(show, address):
    page = show()
    assert page.get_by_role("button", name="Save marks").is_disabled()
    items = page.locator("#translations .item")
    items.nth(0).get_by_role("button", name="Right").click()
    items.nth(1).get_by_role("button", name="Wrong").click()
    items.nth(2).get_by_role("button", name="Wrong").click()
    items.nth(2).get_by_role("button", name="Wrong").click()  # no mark again
    page.goto(address)
    page.wait_for_selector("html[data-drawn]")
    pressed = items.nth(0).get_by_role("button", name="Right")
    assert pressed.get_attribute("aria-pressed") == "true"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save 2 marks").click()
    assert saved.value.suggested_filename == "rates-marks.json"
    found = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert found == {
        "study": "rates",
        "trial": 4,
        "split": "test",
        "marks": [
            {
                "source": f"Ua heluhelu ke aliʻi i ka puke {number}.",
                "output": output,
                "right": is_right,
            }
            for number, output, is_right in (
                (0, "The king read book 0.", True),
                (2, "The king read book 7.", False),
            )
        ],
    }
    assert page.complaints == []


def test_sweep_is_copied_or_selected(show):
    page = show()
    copy = page.locator("#made .copy")
    copy.click()
    wait_until(page, "document.querySelector('#made .copy').textContent !== 'Copy'")
    assert copy.text_content() in ("Copied", "Selected")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    copy.click()
    wait_until(page, "getSelection().toString().includes('learning_rate')")


def test_paper_is_white_and_as_wide_as_its_plots(show, tmp_path):
    page = show(color_scheme="dark")
    ink = "getComputedStyle(document.querySelector('#plot-scores .xtick text')).fill"
    dark = page.evaluate(ink)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 900})
    wait_until(page, f"{ink} !== {dark!r}")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(background) > 0.9
    assert page.locator("nav").is_hidden()
    assert page.locator(".judge:visible, .copy:visible, .find:visible").count() == 0
    widths = "[...document.querySelectorAll('.main-svg')]"
    widths += ".map((each) => each.getBoundingClientRect().width)"
    wait_until(page, f"Math.max(...{widths}) <= 700")
    assert page.pdf(path=tmp_path / "report.pdf").startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("html[data-theme]").count() == 0


def test_page_says_so_where_scripts_are_off(watched_page, address):
    with watched_page(java_script_enabled=False) as page:
        page.goto(address)
        assert page.locator("noscript").is_visible()
        assert page.locator("h1").is_visible()
        assert page.locator("#theme").is_hidden()


def test_study_of_a_real_sweep_is_shown(page, tiny_study, tmp_path):
    study = load_study(open_storage(tiny_study), "tiny")
    report = make_report(study, tiny_study)
    path = tmp_path / "report.html"
    path.write_text(report_page(report, study), encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.locator("h1").text_content() == report.headline
    assert page.locator("#trials tbody tr").count() == 3 + 1  # and the base
    assert page.locator("#plot-curves .scatterlayer .js-line").count() == 3
    assert page.locator("#translations .item").count() > 0
