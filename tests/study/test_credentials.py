import sys
from types import ModuleType

import click
import optuna
import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.study.credentials import refuse_shown_password, with_password, without_secrets

# What a password may hold, as it is and as it stands in a URL.
SECRET, QUOTED = "s3cret @:/?#%é", "s3cret %40%3A/?%23%25%C3%A9".replace("/?", "%2F%3F")
WITH_PASSWORD = [
    f"postgresql://me:{QUOTED}@db.example:5432/studies",
    "postgresql+psycopg2://me:s3cret@/studies?host=/tmp",
    "mysql+pymysql://me@db.example/studies?password=s3cret",
    "mysql+mysqldb://db.example/studies?passwd=s3cret",
    "postgresql://me@db.example/studies?SSLPassword=s3cret",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3Ds3cret",
]
COMMANDS = [
    name
    for name, command in sorted(main.commands.items())
    if any(option.name == "storage" for option in command.params)
]


class Keyring(ModuleType):
    """The system's, as the package shows it."""

    def __init__(self, passwords, fault=None):
        super().__init__("keyring")
        self.errors = ModuleType("keyring.errors")
        self.errors.KeyringError = type("KeyringError", (Exception,), {})
        self.errors.NoKeyringError = type("NoKeyringError", (self.errors.KeyringError,), {})
        self.passwords, self.fault, self.asked = passwords, fault, []

    def get_password(self, service, account):
        self.asked.append((service, account))
        if self.fault:
            raise getattr(self.errors, self.fault)("it is locked")
        return self.passwords.get((service, account))


@pytest.fixture(autouse=True)
def no_password_at_hand(monkeypatch):
    monkeypatch.delenv("HAWSWEEP_STORAGE_PASSWORD", raising=False)
    monkeypatch.delenv("HAWSWEEP_STORAGE", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)  # importing it fails


@pytest.fixture
def use_keyring(monkeypatch):
    def use(passwords, fault=None):
        keyring = Keyring(passwords, fault)
        monkeypatch.setitem(sys.modules, "keyring", keyring)
        monkeypatch.setitem(sys.modules, "keyring.errors", keyring.errors)
        return keyring

    return use


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_password_on_the_command_line_is_refused_and_not_shown(url):
    with pytest.raises(StudyError) as caught:
        refuse_shown_password(url)
    message = str(caught.value)
    assert "every user of this machine can read it in the list of processes" in message
    assert "Set HAWSWEEP_STORAGE to the URL instead" in message
    assert "set HAWSWEEP_STORAGE_PASSWORD, or store it once: keyring set hawsweep " in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/a@b/pwd=x.db",
        "postgresql://me@db.example/studies?passfile=/home/me/.pgpass",
        "postgresql://db.example/studies",
    ],
)
def test_url_without_a_password_is_taken(url):
    refuse_shown_password(url)
    assert with_password(url) == url


def test_every_command_with_a_storage_is_tested_here():
    places = {"list", "start", "status", "show", "compare", "score", "export", "dashboard"}
    assert places <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_a_password_on_its_line(command, tmp_path):
    options = ["--storage", WITH_PASSWORD[0], "--studies-dir", str(tmp_path)]
    needed = [
        "0" if each.name == "trial" else "x"
        for each in main.commands[command].params
        if isinstance(each, click.Argument) and each.required
    ]
    done = CliRunner().invoke(main, [command, *needed, *options])
    assert done.exit_code == 1
    assert "--storage holds a password" in done.stderr
    assert "s3cret" not in done.output


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_password_in_the_environment_is_taken_and_not_shown(url, tmp_path):
    done = CliRunner().invoke(main, ["status"], env={"HAWSWEEP_STORAGE": url})
    assert done.exit_code == 1
    assert "the database given as storage cannot be opened: " in done.stderr
    assert "s3cret" not in done.output


def test_password_beside_the_url_goes_into_it(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", SECRET)
    url = "postgresql://me@db.example:5432/studies?sslmode=require"
    assert with_password(url) == url.replace("me@", f"me:{QUOTED}@")


def test_password_of_the_url_comes_before_the_one_beside_it(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", "another")
    for url in WITH_PASSWORD:
        assert with_password(url) == url


def test_database_without_users_gets_no_password(monkeypatch, use_keyring):
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", SECRET)
    assert with_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("postgresql://me@db.example:5432/studies", "me@db.example/studies"),
        ("postgresql://me@/studies", "me@localhost/studies"),
    ],
)
def test_password_comes_out_of_the_keyring(use_keyring, url, account):
    keyring = use_keyring({("hawsweep", account): SECRET})
    assert with_password(url) == url.replace("me@", f"me:{QUOTED}@")
    assert keyring.asked == [("hawsweep", account)]
    with pytest.raises(StudyError, match=f"keyring set hawsweep {account}$"):
        refuse_shown_password(url.replace("me@", "me:s3cret@"))


def test_environment_comes_before_the_keyring(monkeypatch, use_keyring):
    keyring = use_keyring({})
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", "mine")
    assert with_password("postgresql://me@h/d") == "postgresql://me:mine@h/d"
    assert keyring.asked == []


@pytest.mark.parametrize("fault", [None, "NoKeyringError"])
def test_user_without_a_password_anywhere_has_none(use_keyring, fault):
    use_keyring({}, fault)
    assert with_password("postgresql://me@h/d") == "postgresql://me@h/d"


def test_locked_keyring_says_what_to_do(use_keyring):
    use_keyring({}, "KeyringError")
    with pytest.raises(StudyError, match=r"it is locked\. Unlock it, or set HAWSWEEP_STORAGE_PASS"):
        with_password("postgresql://me@h/d")


def test_secrets_are_hidden_as_they_are_and_quoted():
    url = WITH_PASSWORD[0]
    text = f"no route to {url} for {SECRET}"
    assert without_secrets(text, url) == (
        "no route to postgresql://me:***@db.example:5432/studies for ***"
    )


def test_storage_of_the_environment_is_opened(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    optuna.create_study(storage=url, study_name="rates")
    done = CliRunner().invoke(main, ["list"], env={"HAWSWEEP_STORAGE": url})
    assert done.exit_code == 0, done.output
    assert "rates" in done.stdout
