import json

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.study.place import Place, check_case, check_name
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study

BAD = [
    "",
    ".",
    "..",
    "../outside",
    "a/../../outside",
    "/outside",
    "a\\outside",
    ".hidden",
    "-x",
    "with space",
    "x\n",
    "x\0",
    "~",
]
COMMANDS = [
    ["status", "NAME"],
    ["status", "NAME", "--groups", "--why"],
    ["show", "NAME", "0"],
    ["show", "NAME", "0", "--examples"],
    ["compare", "NAME"],
    ["score", "--checkpoints", "NAME", "0"],
    ["export", "NAME"],
    ["export", "NAME", "--force", "--trial", "0"],
    ["start", "lr-rank", "--study", "NAME"],
    ["start", "lr-rank", "--study", "NAME", "--detach"],
    ["stop", "NAME"],
    ["worker", "NAME"],
]


@pytest.fixture
def place(tmp_path):
    """A folder for studies, and one beside it with what looks like a study's files."""
    outside = tmp_path / "outside" / "trials" / "0000"
    (outside / "adapters").mkdir(parents=True)
    (outside / "log.txt").write_text("kept")
    (outside / "samples.jsonl").write_text("kept")
    place = Place(tmp_path / "studies", f"sqlite:///{tmp_path / 'shared.db'}")
    open_storage(place, create=True)
    return place


def test_names_that_a_mac_takes_for_one_folder_are_refused():
    check_case("rates", ["rates", "rank"])  # the study itself
    for name in ("Rates", "RATES"):
        with pytest.raises(StudyError, match=f"a study '{name}' would have the same folder"):
            check_case(name, ["rank", "rates"])


def add_study(place, name):
    space = {"learning_rate": FloatDistribution(0, 1)}
    study = optuna.create_study(storage=place.url, study_name=name, direction="maximize")
    study.add_trial(create_trial(value=0.5, params={"learning_rate": 0.5}, distributions=space))
    return study


def files_of(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def invoke(place, *arguments):
    options = ["--studies-dir", str(place.studies_dir), "--storage", place.storage_url]
    return CliRunner().invoke(main, [*arguments, *options])


@pytest.mark.parametrize("name", BAD)
def test_name_of_no_folder_inside_is_refused(place, name):
    for use in (
        check_name,
        place.study_dir,
        lambda name: place.trial_dir(name, 0),
        lambda name: place.confirm_dir(name, 0),
        lambda name: load_study(open_storage(place), name),
    ):
        with pytest.raises(StudyError, match="cannot be named") as caught:
            use(name)
        assert "Use letters, digits, '-', '_' and '.', a letter or digit first" in str(caught.value)


def test_name_of_a_confirming_study_is_refused_for_another():
    with pytest.raises(StudyError, match=r"names that end in \.confirm are those of runs"):
        check_name("x.confirm")


@pytest.mark.parametrize("name", ["lr-rank_2.b", "x", "7", "ʻŌlelo", "a..b"])
def test_name_of_letters_digits_and_dashes_is_that_of_its_folder(place, name):
    check_name(name)
    assert place.trial_dir(name, 3) == place.studies_dir / name / "trials" / "0003"


@pytest.mark.parametrize("number", ["../../outside", "7", 7.0])
def test_number_that_is_none_makes_no_folder(place, number):
    for folder_of in (place.trial_dir, place.confirm_dir):
        with pytest.raises(ValueError, match="Unknown format code"):
            folder_of("x", number)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_no_command_leaves_the_studies_folder_by_a_name_in_the_database(place, arguments, name):
    if name.startswith("/"):
        name = str(place.studies_dir.parent / "outside")
    add_study(place, name)
    before = files_of(place.studies_dir.parent / "outside")
    done = invoke(place, *(name if each == "NAME" else each for each in arguments))
    assert done.exit_code == 1, done.output
    assert f"A study cannot be named {name!r}" in done.stderr
    assert files_of(place.studies_dir.parent / "outside") == before


def test_newest_study_is_refused_by_such_a_name_too(place):
    add_study(place, "../outside")
    done = invoke(place, "status")
    assert done.exit_code == 1
    assert "A study cannot be named '../outside'" in done.stderr


def test_studies_of_any_name_are_listed(place):
    names = ["../outside", "[/bold] [red]x", "\x1b[2J", "rates"]
    for name in names:
        add_study(place, name)
    done = invoke(place, "list")
    assert done.exit_code == 0, done.output
    for shown in ("../outside", "[/bold] [red]x", "'\\x1b[2J'", "rates"):
        assert shown in done.stdout
    assert "\x1b" not in done.stdout
    listed = json.loads(invoke(place, "list", "--json").stdout)["studies"]
    assert [each["name"] for each in listed] == sorted(names)
    missing = invoke(place, "status", "none")
    assert missing.exit_code == 1
    assert "Studies here: '\\x1b[2J', ../outside, [/bold] [red]x, rates." in missing.stderr


def test_description_is_shown_as_it_is_written(place):
    add_study(place, "rates").set_user_attr("description", "[/bold] up to [1e-3]")
    done = invoke(place, "status", "rates")
    assert done.exit_code == 0, done.output
    assert "[/bold] up to [1e-3]" in done.stdout
