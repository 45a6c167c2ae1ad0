import noted_study
import pytest
from reported_study import NOW, make_reported_study

from hawsweep.views.report.content import make_report


@pytest.fixture
def study(place):
    """One whose base is measured."""
    return noted_study.make_study(place)


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    """A study with all that a report tells of, its place, and its report."""
    study, place = make_reported_study(tmp_path_factory.mktemp("reported"))
    return study, place, make_report(study, place, NOW)
