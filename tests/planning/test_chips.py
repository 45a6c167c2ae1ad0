"""The speed of a Mac that was never measured."""

import pytest

from hawsweep.machine import mac
from hawsweep.planning.chips import assumed_speed, chip_with

# What an M1 Ultra got of gemma-3-4b-it-4bit, in operations a second.
M1_ULTRA = 5.3e12


@pytest.mark.parametrize(
    ("chip", "named", "share"),
    [
        ("Apple M1 Ultra", "M1 Ultra", 1.0),
        ("Apple M1", "M1", 2.6 / 20.8),
        ("Apple M4 Max", "M4 Max", 18.4 / 20.8),
        ("Apple M3 Pro", "M3 Pro", 7.4 / 20.8),
        ("Apple M1 (Virtual)", "M1", 2.6 / 20.8),
        ("Apple M9 Max", "M5 Max", 19.6 / 20.8),
        ("Apple M4 Ultra", "M4", 4.6 / 20.8),
        ("VMware GPU", "M1", 2.6 / 20.8),
        ("", "M1", 2.6 / 20.8),
    ],
)
def test_speed_goes_by_the_chip_and_says_which(chip, named, share):
    speed = assumed_speed("metal", chip)
    assert speed.flops == pytest.approx(M1_ULTRA * share)
    assert speed.how.startswith("assumed: as an M1 Ultra trains gemma-3-4b-it-4bit")
    assert speed.how.endswith("4bit" if named == "M1 Ultra" else f"by the figures of an {named}")


def test_chip_of_this_machine_is_asked_for(monkeypatch):
    monkeypatch.setattr(mac, "chip", lambda: "Apple M2 Pro")
    assert assumed_speed("metal").how.endswith("an M2 Pro")
    monkeypatch.setattr(mac, "chip", lambda: None)
    assert assumed_speed("metal").flops == pytest.approx(M1_ULTRA)


@pytest.mark.parametrize(
    ("gigabytes", "chip"),
    [(8, "M2"), (24, "M2"), (32, "M3 Pro"), (64, "M2 Max"), (128, "M1 Ultra"), (512, "M2 Ultra")],
)  # fmt: skip
def test_chip_of_another_mac_is_assumed_by_its_memory(gigabytes, chip):
    assert chip_with(gigabytes * 10**9) == chip
    small, large = (assumed_speed("metal", chip_with(each * 10**9)) for each in (8, 128))
    assert small.flops < large.flops / 4
    assert small.bandwidth < large.bandwidth / 4
