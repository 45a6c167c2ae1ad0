"""A plan for a Mac with so much memory is what ``start`` finds on such a Mac."""

import json

import pytest
from metal import GB, Mac, made_up

from hawsweep.models.known_configs import KNOWN_MODELS

MODELS = {
    "gemma-3-1b": "mlx-community/gemma-3-1b-it-4bit",
    "gemma-3-4b": "mlx-community/gemma-3-4b-it-4bit",
    "smollm2": "smollm2-135m-instruct",
}
# The part of ``start`` before its workers, of models that have a config and no weights: nothing is
# measured, as in a plan for a machine that is elsewhere.
SHARES = """
import json, sys
from pathlib import Path
from hawsweep.errors import MemoryBudgetError
from hawsweep.planning import calibration
from hawsweep.planning.share_memory import share_memory
from hawsweep.planning.sweep_plan import plan_sweep, to_plain
from hawsweep.spec.read import find_sweep, read_sweep

calibration.ensure_calibrated = lambda path, known, *_: known
for name in sys.argv[1:]:
    spec = read_sweep(find_sweep("gemma-lr-rank"), {"model": name})
    try:
        shares = share_memory(spec, {name: Path(name)}, lambda _: None)
        begins = {"workers": shares.n_workers, "worker_bytes": round(shares.bytes_each)}
    except MemoryBudgetError as fault:
        begins = str(fault)
    elsewhere = plan_sweep(spec, ram=Path("ram").read_text())
    print(json.dumps([begins, to_plain(elsewhere), elsewhere.fits]))
"""


@made_up
@pytest.mark.parametrize("gigabytes", [8, 16, 32])
def test_plan_for_so_much_memory_is_what_start_finds_there(tmp_path, gigabytes):
    mac = Mac(tmp_path, tmp_path / "cache", gigabytes)
    (tmp_path / "ram").write_text(f"{gigabytes}GB", encoding="utf-8")
    for name, model in MODELS.items():
        (tmp_path / name).mkdir()
        config = json.dumps(KNOWN_MODELS[model])
        (tmp_path / name / "config.json").write_text(config, encoding="utf-8")
    said = mac.python(SHARES, *[str(tmp_path / name) for name in MODELS])
    fits = []
    for line in said.splitlines():
        begins, plan, is_possible = json.loads(line)
        fits.append(is_possible)
        assert plan["budget_bytes"] == pytest.approx(0.9 * gigabytes * GB * 2 / 3, abs=2)
        if is_possible:
            expected = {"workers": plan["workers"], "worker_bytes": plan["worker_bytes"]}
            assert begins == pytest.approx(expected, abs=2)
        elif plan["smallest"]["needed_bytes"] > plan["arrays_bytes"]:
            assert "No setting of this sweep fits" in begins
            assert f"{plan['smallest']['peak_bytes'] / 1e9:.2f} GB" in begins
        else:
            assert "Translating 16 prompts" in begins
            assert f"{plan['scoring_bytes'] / 1e9:.2f} GB" in begins
    # SmolLM2 is in float32: 8 GB are too few for 16 prompts of this length at a time.
    assert fits == [True, gigabytes > 16, gigabytes > 8]
