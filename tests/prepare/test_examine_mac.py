"""What doctor says of a Mac, with what its system tells injected: none of this ran on one."""

import os
import platform
import time
from types import SimpleNamespace

import pytest

from hawsweep.machine import backend, mac
from hawsweep.prepare import examine_mac
from hawsweep.prepare.examine_mac import cache_finding, low_bits_finding, mac_findings
from hawsweep.study.place import Place

_GB = 10**9


@pytest.fixture
def found(monkeypatch, tmp_path):
    """Examines a Mac on which all is well, but for what is given."""
    told = {
        "version": "15.4",
        "chip": "Apple M2",
        "recommended": 11 * _GB,
        "pressure": "normal",
        "share": 0.7,
        "display": False,
        "folder": tmp_path / "studies",
    }

    def examine(**differs):
        now = {**told, **differs}
        monkeypatch.setattr(platform, "mac_ver", lambda: (now["version"], None, "arm64"))
        monkeypatch.setattr(mac, "chip", lambda: now["chip"])
        monkeypatch.setattr(backend, "recommended_bytes", lambda: now["recommended"])
        monkeypatch.setattr(mac, "memory_pressure", lambda: now["pressure"])
        monkeypatch.setattr(mac, "free_share", lambda: now["share"])
        monkeypatch.setattr(mac, "is_display_on", lambda: now["display"])
        monkeypatch.setattr(mac, "sysctl_number", lambda _name: 0)
        now["folder"].mkdir(parents=True, exist_ok=True)
        return {each.subject: each for each in mac_findings(Place(now["folder"]), tmp_path)}

    return examine


def test_mac_on_which_all_is_well_is_warned_of_what_never_ran_alone(found):
    examined = found()
    assert [each.subject for each in examined.values() if each.state != "ok"] == ["Metal"]
    assert "was never run" in examined["Metal"].text
    assert examined["macOS"].text == "macOS 15.4 on Apple M2"
    assert examined["GPU memory"].text == "the GPU may take 11.0 GB"
    assert examined["pressure"].text == "memory pressure is normal, 70% could be given"
    assert "caffeinate does not stop" in examined["lid"].text


@pytest.mark.parametrize(
    ("differs", "subject", "state", "words"),
    [
        ({"version": "13.6"}, "macOS", "fault", "MLX needs macOS 14"),
        ({"version": "14.7"}, "macOS", "warning", "Before macOS 15"),
        ({"version": ""}, "macOS", "warning", "of an unknown version"),
        ({"chip": None}, "macOS", "ok", "an unknown chip"),
        ({"recommended": None}, "GPU memory", "warning", "memory.budget"),
        ({"pressure": "critical", "share": 0.05}, "pressure", "warning", "is critical, 5%"),
        ({"pressure": None}, "pressure", "warning", "does not tell its memory pressure"),
        ({"share": None}, "pressure", "warning", "as psutil counts"),
        ({"display": True}, "display", "warning", "pmset displaysleepnow"),
        ({"display": None}, "display", "warning", "whether it is on is not known"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_known_is_said_with_a_remedy(found, differs, subject, state, words):
    one = found(**differs)[subject]
    assert one.state == state
    assert words in f"{one.text} {one.remedy}"


@pytest.mark.parametrize(
    ("parts", "service"),
    [
        (("Mobile Documents", "com~apple~CloudDocs"), "iCloud"),
        (("Dropbox (Private)",), "Dropbox"),
        (("CloudStorage", "GoogleDrive-me"), "Google Drive"),
        (("OneDrive - Work",), "OneDrive"),
    ],
)
def test_folder_in_a_cloud_is_warned_of(found, tmp_path, parts, service):
    one = found(folder=tmp_path.joinpath(*parts))["folder"]
    assert one.state == "warning"
    assert f"is synced by {service}" in one.text


@pytest.mark.parametrize(
    ("attribute", "service"),
    [("com.apple.icloud.desktop", "iCloud"), ("com.apple.file-provider-domain-id", "a cloud")],
)
def test_documents_folder_that_macos_syncs_is_warned_of(
    found, tmp_path, monkeypatch, attribute, service
):
    documents = tmp_path / "Documents"
    monkeypatch.setattr(
        mac, "has_attribute", lambda path, name: (path, name) == (documents, attribute)
    )
    one = found(folder=documents / "hawsweep" / "studies")["folder"]
    assert one.state == "warning"
    assert f"is synced by {service}" in one.text
    assert found(folder=tmp_path / "studies")["folder"].state == "ok"


def test_recent_panics_are_counted_and_old_ones_are_not(found, tmp_path):
    for name, days in (("new.panic", 1), ("older.panic", 5), ("old.panic", 90)):
        (tmp_path / name).write_text("panic")
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    one = found()["panics"]
    assert one.state == "warning"
    assert one.text == f"2 reports of the last 30 days, the newest {tmp_path / 'new.panic'}"


def test_low_bits_compute_here_as_they_should_and_are_a_fault_where_not(monkeypatch):
    assert low_bits_finding().state == "ok"
    monkeypatch.setattr(examine_mac, "low_bits_cosine", lambda: 0.5)
    assert low_bits_finding().state == "fault"


def test_cache_is_told_after_steps_of_varying_width():
    assert "kept in freed buffers after 20 steps" in cache_finding().text


def test_two_openmp_libraries_are_said(found, tmp_path, monkeypatch):
    for name, folder in (("torch", "lib"), ("sklearn", ".dylibs")):
        (tmp_path / "site" / name / folder).mkdir(parents=True)
        (tmp_path / "site" / name / folder / "libomp.dylib").touch()

    def find_spec(name):
        return SimpleNamespace(submodule_search_locations=[str(tmp_path / "site" / name)])

    assert found()["OpenMP"].text == "one library at most"
    monkeypatch.setattr(examine_mac, "find_spec", find_spec)
    assert found()["OpenMP"].text.startswith("torch and sklearn bring one each")
    assert "OMP: Error #15" in found()["OpenMP"].remedy
