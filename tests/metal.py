"""A Mac to run commands on: this one, elsewhere the one that ``tests/stand_in`` makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND

GB = 10**9
STAND_IN = Path(__file__).with_name("stand_in")
TESTS = Path(__file__).parent
IS_REAL = sys.platform == "darwin"
made_up = pytest.mark.skipif(IS_REAL, reason="a real Mac's facts cannot be changed")


class Mac:
    """A Mac with 16 GB, whose facts a test may change while something runs.

    Args:
        cache: What it measured of its models.
    """

    def __init__(self, folder, cache, gigabytes=16, chip="Apple M2"):
        self.folder, self._cache, self._about = folder, cache, folder / "mac"
        self._about.mkdir()
        self.facts = {
            "host": "studio.local",
            "machine": "8A3F0B6C-52D1-4E0B-9B63-3C1B2C1F9A77",
            "clock_step": 0.0,
            "total": gigabytes * GB,
            "display": False,
            "sysctl": {
                "kern.bootsessionuuid": "11111111-2222-3333-4444-555555555555",
                "kern.memorystatus_vm_pressure_level": 1,
                "kern.memorystatus_level": 70,
                "machdep.cpu.brand_string": chip,
            },
            "device_info": {
                "device_name": chip,
                "max_recommended_working_set_size": gigabytes * GB * 2 // 3,
            },
        }
        self.change()

    def change(self, **facts):
        self.facts.update(facts)
        beside = self._about / "facts.new"
        beside.write_text(json.dumps(self.facts), encoding="utf-8")
        beside.replace(self._about / "facts.json")

    def fails_with(self, *texts):
        """Have the GPU's next steps that are reported fail with these words."""
        (self._about / "faults.txt").write_text("\n".join(texts), encoding="utf-8")

    @property
    def environment(self):
        folders = [*([] if IS_REAL else [str(STAND_IN)]), str(TESTS)]
        return {
            **os.environ,
            "HAWSWEEP_STAND_IN": str(self._about),
            "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
            "HAWSWEEP_CACHE": str(self._cache),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments):
        """A command that runs meanwhile."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments, code=0):
        """What a command says."""
        with self.start(*arguments) as process:
            said, _ = process.communicate(timeout=900)
        assert process.returncode == code, said
        return said

    def python(self, code, *arguments):
        """What Python prints there."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def calls(self, name):
        """The values that were given to MLX or the system by this name."""
        path = self._about / "calls.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [line["value"] for line in map(json.loads, lines) if line["call"] == name]
