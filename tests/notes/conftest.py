import noted_study
import pytest


@pytest.fixture
def study(place):
    """One whose base is measured."""
    return noted_study.make_study(place)
