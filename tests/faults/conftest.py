import pytest
from harness import Lab


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """The tiny model, whose memory has been measured."""
    folder = tmp_path_factory.mktemp("calibrated")
    with Lab(folder, tiny_model_dir, chat_data_dir, trials=1).start() as run:
        assert run.wait() == 0, run.events
    return tiny_model_dir


@pytest.fixture
def lab(tmp_path, calibrated, chat_data_dir):
    made = []

    def make(**changes):
        folder = tmp_path / f"lab-{len(made)}"
        folder.mkdir()
        made.append(Lab(folder, calibrated, chat_data_dir, **changes))
        return made[-1]

    return make
