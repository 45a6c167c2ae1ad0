"""Debian's Chromium or a Mac's Chrome, driven by Playwright."""

import shutil
from contextlib import contextmanager

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


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
