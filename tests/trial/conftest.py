"""What the tests of trials share."""

import pytest
from trial_bench import Sweep


@pytest.fixture
def sweep(tiny_model, chat_data_dir, tmp_path):
    made = []

    def make(data_dir=chat_data_dir, **changes):
        made.append(Sweep(tiny_model, data_dir, tmp_path / f"studies-{len(made)}", **changes))
        return made[-1]

    return make
