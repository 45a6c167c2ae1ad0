"""Addresses with user, password or token: nothing that others read may show them."""

import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.errors import HawsweepError, SpecError, StudyError
from hawsweep.running.events import Event
from hawsweep.running.notify import find_targets, telling
from hawsweep.spec.read import check_sweep, parse_override, read_sweep
from hawsweep.study.credentials import refuse_shown_password, with_password, without_secrets
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage, storage_faults_told

SECRET = "T0psecretT0psecretT0psec"
# Where a secret stands in an address to notify.
ADDRESSES = (
    f"https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/{SECRET}",
    f"slack://T1JJ3T3L2/A1BRTD4JD/{SECRET}/#general",
    f"https://discord.com/api/webhooks/{'1' * 18}/{SECRET}",
    f"discord://{'1' * 18}/{SECRET}",
    f"ntfys://me:{SECRET}@127.0.0.1:1/topic",
    f"ntfy://127.0.0.1:1/{SECRET}",
    f"https://ntfy.sh/{SECRET}",
    f"tgram://123456789:{SECRET}{SECRET[:11]}/12345",
    f"json://me:{SECRET}@127.0.0.1:1/x",
    f"json://127.0.0.1:1/x?token={SECRET}",
    f"json://127.0.0.1:1/{SECRET}",
    f"jsons://{SECRET}@127.0.0.1:1",
    f"mailto://me:{SECRET}@127.0.0.1:1?smtp=127.0.0.1",
    f"gotify://127.0.0.1:1/{SECRET}",
    f"https://example.com/{SECRET}",
    f"unknown://{SECRET}",
    f"json://[{SECRET}",
    f"slack://{SECRET}",
    f"curl -d x https://me:{SECRET}@127.0.0.1:1; exit 3",
    f"echo {SECRET} >&2; exit 3",
)
# Those that are tried, without an answer.
REACHED = re.compile(r"(ntfys?|jsons?|gotify)://[^[]*127\.0\.0\.1|curl|echo")
# Of a database's URL; the password is in its own place or in the query, by any key.
STORAGES = (
    f"postgresql://me:{SECRET}@127.0.0.1:1/x",
    f"mysql://me:{SECRET}@127.0.0.1:1/x",
    f"nothing://me:{SECRET}@127.0.0.1:1/x",
    f"postgresql+psycopg2://127.0.0.1:1/x?password={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/x?access_token={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/x?api_key={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/x?sslpassphrase={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/x?secret={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/x?options={SECRET}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D%7B{SECRET}%7D%3BUID%3Dme",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPassword%20%3D%20{SECRET}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BAccessToken%3D{SECRET}",
    f"mysql+pymysql://me@127.0.0.1:1/x?init_command={SECRET}",
    f"sqlite+pysqlcipher://:{SECRET}@//nonexistent/x.db",
)
OPEN = (
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BSERVER%3Ddb%3BUID%3Dme%3BTrusted_Connection%3Dyes",
    "sqlite:////tmp/x.db?mode=ro&uri=true",
    "postgresql://me@db.example/x?sslmode=require&application_name=sweeps",
    "postgresql://me@db.example/x?host=/var/run/postgresql",
    "mysql+pymysql://me@db.example/x?charset=utf8mb4&ssl_ca=/etc/ca.pem",
)
SWEEP = {"model": "m", "data": "d", "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}}}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in ("HAWSWEEP_NOTIFY", "HAWSWEEP_STORAGE", "HAWSWEEP_STORAGE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_to_notify_is_in_no_message_and_no_representation(address, capfd, caplog):
    caplog.set_level(0)
    try:
        shown = repr(find_targets(address))
    except SpecError as fault:
        shown = f"{fault} {fault!r} {fault.__cause__}"
    out, err = capfd.readouterr()
    assert SECRET not in shown + out + err


@pytest.mark.parametrize("address", [each for each in ADDRESSES if REACHED.match(each)])
def test_address_that_cannot_be_reached_is_in_no_event_and_no_log(address, capfd):
    events = []
    with telling(
        "rates", check_sweep(SWEEP, "rates.yaml"), find_targets(address), events.append
    ) as news:
        news(Event("study", values={"finished": 0, "is_new": True, "n_trials": 3}))
    out, err = capfd.readouterr()
    assert [event.kind for event in events] == ["study", "not_told"]
    assert SECRET not in f"{events} {out} {err}"


@pytest.mark.parametrize("form", ["{}", "[{}]", "{{url: {}}}", "[end, {}]"])
@pytest.mark.parametrize("address", [ADDRESSES[0], ADDRESSES[4]])
def test_address_in_a_sweep_is_refused_and_not_quoted(tmp_path, form, address):
    sweep = tmp_path / "sweep.yaml"
    lines = ["model: m", "data: d", "search: {learning_rate: {low: 1e-5, high: 1e-3}}"]
    sweep.write_text("\n".join([*lines, f"notify: {form.format(repr(address))}"]))
    with pytest.raises(SpecError) as caught:
        read_sweep(sweep)
    assert SECRET not in str(caught.value)
    done = CliRunner().invoke(main, ["validate", str(sweep), "--json"])
    assert done.exit_code == 1
    assert SECRET not in done.output


@pytest.mark.parametrize("address", [ADDRESSES[0], ADDRESSES[4]])
def test_address_set_for_one_start_is_refused_and_not_quoted(tmp_path, address):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("model: m\ndata: d\nsearch: {learning_rate: {low: 1e-5, high: 1e-3}}\n")
    key, value = parse_override(f"notify={address}")
    with pytest.raises(SpecError) as caught:
        read_sweep(sweep, {key: value})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", STORAGES)
def test_secret_of_a_storage_is_refused_on_the_command_line_and_not_quoted(url):
    with pytest.raises(StudyError) as caught:
        refuse_shown_password(url)
    assert SECRET not in str(caught.value)
    assert "a password, and every user of this machine can read it" in str(caught.value)


@pytest.mark.parametrize("url", STORAGES)
def test_storage_that_cannot_be_opened_is_told_without_its_secret(url):
    with pytest.raises(StudyError) as caught:
        open_storage(Place(storage_url=url))
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("url", STORAGES)
def test_secret_of_a_storage_is_in_no_fault_while_it_is_used(url):
    import sqlalchemy.exc

    fault = sqlalchemy.exc.OperationalError(None, None, Exception(f"{url} {SECRET}"))
    with pytest.raises(HawsweepError) as caught, storage_faults_told(Place(storage_url=url)):
        raise fault
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"
    assert SECRET not in repr(Place(storage_url=url))


@pytest.mark.parametrize("url", OPEN)
def test_storage_without_a_secret_is_taken_and_shown_as_it_is(url):
    refuse_shown_password(url)
    assert without_secrets(url, url) == url


def test_password_is_looked_up_beside_a_query_that_may_hold_a_secret(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", "mine")
    url = "postgresql://me@db.example/x?options=-csearch_path%3Da"
    assert with_password(url).startswith("postgresql://me:mine@db.example/x?options=")


@pytest.mark.parametrize("command", [["status", "rates"], ["list"]])
def test_storage_in_the_environment_is_in_no_output_of_a_process(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hawsweep.cli", *command],
        capture_output=True,
        check=False,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HAWSWEEP_STORAGE": STORAGES[4]},
    )
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
