import json

import pytest
from audit import judge

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
BROKEN = {"name": "broken", "version": "2.0"}
BROKEN |= {"vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}, {"id": "CVE-2", "fix_versions": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def judged(*packages):
    return judge(json.dumps({"dependencies": packages}), "")


def test_vulnerability_fails_with_its_remedy():
    code, text = judged(SOUND, BROKEN, UNKNOWN)
    assert code == 1
    assert text.splitlines() == [
        "broken 2.0: CVE-1, mended in 2.1",
        "broken 2.0: CVE-2, mended in no version",
        "2 packages audited, without unknown: 2 vulnerabilities",
    ]


def test_sound_packages_pass():
    assert judged(SOUND, SOUND) == (0, "2 packages audited: 0 vulnerabilities")


def test_service_that_knows_nothing_is_no_audit():
    assert judged(UNKNOWN, UNKNOWN) == (
        0,
        "skipped: the vulnerability service knows none of the packages",
    )


@pytest.mark.parametrize(
    "errors",
    [
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\nERROR:pip_audit._cli:"
        "Tip: your network may be blocking this service. Try another service with `-s SERVICE`",
        "Traceback\nrequests.exceptions.ConnectionError: Max retries exceeded",
        "Traceback\nrequests.exceptions.ReadTimeout: Read timed out.",
    ],
)
def test_service_out_of_reach_is_skipped(errors):
    code, text = judge("", errors)
    assert code == 0
    assert text.startswith("skipped: the vulnerability service cannot be reached (")


@pytest.mark.parametrize("errors", ["", "No module named pip_audit", "invalid requirements input"])
def test_audit_that_cannot_be_made_otherwise_fails(errors):
    code, text = judge("", errors)
    assert code == 1
    assert text.startswith("pip-audit failed: ")
