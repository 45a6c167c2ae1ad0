"""What the commands that prepare, check and score print, in terminals of several widths."""

import json
import re

import pytest
from click.testing import CliRunner
from tiny_sweep import LETTERS_DIR

from hawsweep.cli import main

WIDTHS = (40, 80, 90, 100, 110, 120, 140)


@pytest.fixture(scope="module")
def commands(tmp_path_factory, tiny_model_dir, chat_data_dir):
    folder = tmp_path_factory.mktemp("prepared")
    spec = {
        "model": str(tiny_model_dir),
        "data": str(chat_data_dir),
        "train": {
            "num_layers": 2,
            "batch_size": 2,
            "iters": 20,
            "steps_per_eval": 5,
            "max_seq_length": 256,
        },
        "search": {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "lora_parameters.rank": {"choices": [2, 4, 8]},
        },
    }
    sweep, table = folder / "pairs.yaml", folder / "pairs.csv"
    sweep.write_text(json.dumps(spec))
    rows = (f"He hale nui {n}.,It is a big house {n}.,A house {n},Big {n}" for n in range(12))
    table.write_text("\n".join(("source,reference,by the first,by the second", *rows)))
    where = ("--studies-dir", str(folder / "studies"))
    return {
        "validate": ("validate", str(sweep), *where),
        "preview": ("preview", str(sweep)),
        "plan": ("plan", str(sweep), "--all"),
        "explain": ("explain",),
        "explain a key": ("explain", "lora_parameters.rank"),
        "doctor": ("doctor", "--quick", *where),
        "score": ("score", str(table), "--metric", "chrf", "--embedder", str(LETTERS_DIR)),
        "list": ("list", *where),
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_terminal_and_nothing_is_cut(commands, width):
    for name, command in commands.items():
        done = CliRunner().invoke(main, command, env={"COLUMNS": str(width)})
        assert "Traceback" not in done.output, name
        for line in done.output.splitlines():
            is_path = "/hawsweep.db" in line  # whole, to be copied
            assert len(line) <= width or is_path, (name, line)
            assert not re.search(r"[\w.]…", line), (name, line)
