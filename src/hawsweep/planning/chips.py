"""The speed of a model that was never measured, by the chip.

The figures of Apple's chips are public: bandwidth from Apple's specifications, and arithmetic in
float32 from clock and cores of the largest GPU of each name. Smaller ones have down to two thirds,
and the M5's accelerators are left out. How much of it training gets is known of one machine only:
an M1 Ultra trained gemma-3-4b-it-4bit, 16 checkpointed layers, at 350 tokens a second. All others
are assumed to get the same share.
"""

import re
from dataclasses import dataclass

from hawsweep.machine.backend import Device

from hawsweep.machine import mac
from hawsweep.planning.trial_plan import Speed

_GB = 1e9


@dataclass(frozen=True)
class Chip:
    """A chip's memory bandwidth in bytes a second, and operations a second in float32."""

    bandwidth: float
    flops: float


_CHIPS = {
    name: Chip(gigabytes * 1e9, teraflops * 1e12)
    for name, gigabytes, teraflops in (
        ("M1", 68, 2.6),
        ("M1 Pro", 200, 5.3),
        ("M1 Max", 400, 10.4),
        ("M1 Ultra", 800, 20.8),
        ("M2", 100, 3.6),
        ("M2 Pro", 200, 6.8),
        ("M2 Max", 400, 13.6),
        ("M2 Ultra", 800, 27.2),
        ("M3", 100, 4.1),
        ("M3 Pro", 150, 7.4),
        ("M3 Max", 400, 16.4),
        ("M3 Ultra", 819, 32.8),
        ("M4", 120, 4.6),
        ("M4 Pro", 273, 9.2),
        ("M4 Max", 546, 18.4),
        ("M5", 153, 4.9),
        ("M5 Pro", 307, 9.8),
        ("M5 Max", 614, 19.6),
    )
}
_KNOWN = "M1 Ultra"
_SHARE_OF_FLOPS = 5.3e12 / _CHIPS[_KNOWN].flops
# Assumed: nobody has told the time of its translations.
_SHARE_OF_BANDWIDTH = 300e9 / _CHIPS[_KNOWN].bandwidth
_STEP_S = 0.05
# A Mac with this much memory, of those sold: the slowest that many have.
_BY_MEMORY = ((24, "M2"), (36, "M3 Pro"), (48, "M4 Pro"), (64, "M2 Max"), (128, _KNOWN))
_LARGEST = "M2 Ultra"
_ELSEWHERE: dict[Device, Speed] = {
    "cpu": Speed(60e9, 0.2, "assumed: one core at 60 GFLOP/s", bandwidth=8e9),
    "cuda": Speed(20e12, 0.02, "assumed: 20 TFLOP/s", bandwidth=800e9),
}


def assumed_speed(device: Device, chip: str | None = None) -> Speed:
    """The speed of a device without a measurement.

    Args:
        chip: A Mac's, as ``machdep.cpu.brand_string`` or MLX's ``device_name`` gives it; this
            machine's by default. A name that is not known is taken for its generation's smallest,
            or for an M1.
    """
    if device != "metal":
        return _ELSEWHERE[device]
    name = _name_of(mac.chip() or _KNOWN if chip is None else chip)
    found = _CHIPS[name]
    how = f"assumed: as an {_KNOWN} trains gemma-3-4b-it-4bit"
    if name != _KNOWN:
        how += f", by the figures of an {name}"
    return Speed(
        _SHARE_OF_FLOPS * found.flops,
        _STEP_S,
        how,
        bandwidth=_SHARE_OF_BANDWIDTH * found.bandwidth,
    )


def chip_with(memory_bytes: int) -> str:
    """The chip that a Mac with this much memory is assumed to have."""
    return next((name for most, name in _BY_MEMORY if memory_bytes <= most * _GB), _LARGEST)


def _name_of(text: str) -> str:
    """The table's name for a chip."""
    found = re.search(r"\bM(\d+)(?: (Pro|Max|Ultra))?\b", text)
    if found is None:
        return "M1"
    generation, kind = f"M{found[1]}", found[2]
    newest = max((name for name in _CHIPS if " " not in name), key=lambda name: int(name[1:]))
    if generation not in _CHIPS:
        generation = newest
    name = f"{generation} {kind}" if kind else generation
    return name if name in _CHIPS else generation
