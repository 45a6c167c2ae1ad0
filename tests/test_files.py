"""What is written is on the disk before it takes its place."""

import pytest

from hawsweep import files

F_FULLFSYNC = 51  # of macOS's sys/fcntl.h


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(files.os, "fsync", lambda _: made.append("fsync"))
    return made


def test_file_is_synced_before_it_is_in_place(tmp_path, calls):
    files.replace_text(tmp_path / "new", "text")
    assert calls == ["fsync"]
    assert (tmp_path / "new").read_text() == "text"


@pytest.mark.parametrize(
    ("has_it", "expected"),
    [(True, [F_FULLFSYNC]), (False, [F_FULLFSYNC, "fsync"])],  # not every file system has it
)
def test_mac_is_told_to_empty_the_disks_own_buffer(tmp_path, calls, monkeypatch, has_it, expected):
    def fcntl(_descriptor, command):
        calls.append(command)
        if not has_it:
            raise OSError

    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", fcntl)
    files.replace_text(tmp_path / "new", "text")
    assert calls == expected
