"""Pages in a real browser; skipped where there is none.

A page that a test opens may ask nothing outside of this machine, and must cause no error on its
console.
"""

import shutil
from urllib.parse import urlsplit

import pytest
from harness import Lab

from hawsweep.study.place import Place

_HERE = ("127.0.0.1", "localhost")
_OF_NO_HOST = ("about", "blob", "data", "file")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, by Playwright."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def page(browser, request):
    """A page in light and in dark; at its end what it caused on the console and asked outside is
    looked at.
    """
    context = browser.new_context(
        viewport={"width": 1400, "height": 1000}, color_scheme=request.param
    )
    opened, errors, outside = context.new_page(), [], []

    def note_request(sent):
        where = urlsplit(sent.url)
        if where.scheme not in _OF_NO_HOST and where.hostname not in _HERE:
            outside.append(sent.url)

    def note_message(message):
        if message.type == "error":
            errors.append(message.text)

    opened.set_default_timeout(60_000)
    opened.on("request", note_request)
    opened.on("console", note_message)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert outside == []
    assert errors == []


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """Where the tiny model was swept, as the study ``tiny``, with its test split opened."""
    folder = tmp_path_factory.mktemp("swept")
    lab = Lab(folder, tiny_model_dir, chat_data_dir, trials=3)
    assert lab.finish().ended
    return Place(lab.studies)
