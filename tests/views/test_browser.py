import sys
import webbrowser

import pytest

from hawsweep.views.dashboard import browser
from hawsweep.views.dashboard.browser import is_seen, open_address


@pytest.mark.parametrize(
    ("environment", "platform", "is_terminal", "expected"),
    [
        ({}, "darwin", True, True),
        ({}, "darwin", False, False),
        ({"SSH_CONNECTION": "a"}, "darwin", True, False),
        ({}, "linux", True, False),
        ({"DISPLAY": ":0"}, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({"DISPLAY": ""}, "linux", True, False),
        ({"DISPLAY": ":0"}, "linux", False, False),
        ({"DISPLAY": ":10", "SSH_TTY": "/dev/pts/1"}, "linux", True, False),
    ],
)
def test_page_is_seen_on_a_display_before_the_terminal(
    environment, platform, is_terminal, expected
):
    assert is_seen(environment, platform, is_terminal=is_terminal) is expected


def test_address_is_opened_where_it_is_seen_alone(monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.setattr(browser, "is_seen", lambda *_, is_terminal: is_terminal)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert not open_address("http://127.0.0.1:1/")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert open_address("http://127.0.0.1:1/")
    assert opened == ["http://127.0.0.1:1/"]


def test_no_browser_at_all_is_no_error(monkeypatch):
    def fail(_):
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(browser, "is_seen", lambda *_, is_terminal: True)
    monkeypatch.setattr(webbrowser, "open", fail)
    assert not open_address("http://127.0.0.1:1/")
