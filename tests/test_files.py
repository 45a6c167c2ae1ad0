"""What is written is on the disk before it takes its place."""

import threading

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


def test_files_are_found_while_folders_vanish(tmp_path):
    (tmp_path / "stays" / "inside").mkdir(parents=True)
    (tmp_path / "stays" / "inside" / "file").touch()
    (tmp_path / "stays" / "link").symlink_to(tmp_path / "stays" / "inside" / "file")
    (tmp_path / "stays" / "broken").symlink_to(tmp_path / "nowhere")
    wanted = [tmp_path / "stays" / "inside" / "file", tmp_path / "stays" / "link"]
    is_over = threading.Event()

    def come_and_go():
        while not is_over.is_set():
            for name in range(20):
                (tmp_path / f"passes-{name}").mkdir()
            for name in range(20):
                (tmp_path / f"passes-{name}").rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert all(files.files_under(tmp_path) == wanted for _ in range(500))
    finally:
        is_over.set()
        other.join()


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [(FileNotFoundError(), False), (PermissionError(), False), (OSError(5, "I/O error"), True)],
)
def test_folder_that_cannot_be_read_is_left_out_unless_the_disk_fails(
    tmp_path, monkeypatch, fault, is_told
):
    (tmp_path / "file").touch()
    (tmp_path / "inside").mkdir()
    scandir = files.os.scandir

    def scan(folder):
        if str(folder).endswith("inside"):
            raise fault
        return scandir(folder)

    monkeypatch.setattr(files.os, "scandir", scan)
    if is_told:
        with pytest.raises(OSError, match="I/O error"):
            files.files_under(tmp_path)
    else:
        assert files.files_under(tmp_path) == [tmp_path / "file"]
