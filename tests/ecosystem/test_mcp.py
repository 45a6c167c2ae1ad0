"""The commands as an agent's tools: the SDK's own client talks to a server over stdio."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import click
import numpy as np
import pytest
from click.testing import CliRunner
from judged_study import record
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from optuna.trial import TrialState, create_trial
from reported_study import answers, write_samples
from tiny_sweep import really_embedded, tiny_sweep

from hawsweep.cli import main
from hawsweep.cli.mcp import TOOLS, run_tool
from hawsweep.errors import HawsweepError
from hawsweep.results.verdict import judge_study
from hawsweep.search.distributions import distributions
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study, spec_of
from hawsweep.views.json_schema import OUTPUTS

SETTING = {"learning_rate": 3e-4, "lora_parameters.rank": 8}


def talk(root, conversation):
    """What a conversation with a server gives: a function of the session."""

    async def run():
        arguments = ["-m", "hawsweep.cli", "mcp", "--root", root.name]
        server = StdioServerParameters(
            command=sys.executable, args=arguments, env=dict(os.environ), cwd=root.parent
        )
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            return await conversation(session)

    # A browser of other tests leaves its loop running in the main thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, run).result()


def text_of(result):
    [content] = result.content
    return content.text


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with the study ``rates``, in which this process is too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAWSWEEP_STUDIES_DIR", raising=False)
    study = record("clear", Place(tmp_path / "studies"))
    tested = study.user_attrs["test"]
    more = {"low": 0.1, "high": 0.7, "exact_match": 0.0, "length_ratio": 1.0, "time_s": 1.0}
    whole = {kind: {**more, "faults": {}, **tested[kind]} for kind in ("base", "trial")}
    study.set_user_attr("test", {**tested, **whole})
    return tmp_path


def printed(*arguments):
    done = CliRunner().invoke(main, [*arguments, "--json"])
    return json.loads(done.stdout)


def test_results_are_the_json_that_commands_print_with_their_schemas(root):
    async def conversation(session):
        tools = await session.list_tools()
        called = [
            await session.call_tool(*call)
            for call in (
                ("list", {}),
                ("status", {"name": "rates", "why": True}),
                ("show", {"name": "rates", "trial": 1}),
                ("compare", {"name": "rates", "trial": [0, 1]}),
                ("validate", {"name": "none"}),
                ("enqueue", {"name": "rates", "settings": SETTING}),
            )
        ]
        return tools.tools, called

    tools, called = talk(root, conversation)
    assert {tool.name for tool in tools} == TOOLS.keys()
    for tool in tools:
        assert tool.description
        assert tool.input_schema["type"] == "object"
        if tool.name in OUTPUTS:
            assert tool.output_schema.items() >= OUTPUTS[tool.name].json_schema().items()
    assert not any(result.is_error for result in called), called
    *read, validated, queued = (result.structured_content for result in called)
    assert validated == printed("validate", "none")
    assert not validated["is_valid"]
    assert (queued["trial"], queued["settings"]) == (3, SETTING)
    assert CliRunner().invoke(main, ["stop", "rates", "--trial", "3"]).exit_code == 0
    listed, status, shown, compared = read
    assert listed["sweeps"] == printed("list")["sweeps"]
    assert status["verdict"] == printed("status", "rates")["verdict"]
    assert status["known"] == printed("status", "rates")["known"]
    assert shown == printed("show", "rates", "1")
    assert compared == printed("compare", "rates", "--trial", "0", "--trial", "1")


def test_bad_calls_are_answered_with_a_sentence(root):
    (root / "out").symlink_to("/etc")
    outside = f"leads out of {root}, to which this server keeps."
    calls = [
        ("delete", {}, "There is no tool 'delete'. Tools: list, validate,"),
        ("status", {"name": "none"}, "There is no study 'none'. Studies here: rates."),
        ("status", {"name": "../rates"}, f"../rates {outside}"),
        ("show", {"name": "rates", "trial": 99}, "Study 'rates' has no trial 99"),
        ("show", {"name": "rates", "trial": "one"}, "Invalid value for '[TRIAL]': 'one'"),
        ("show", {"trial": 1}, "show needs name."),
        ("show", {"name": "rates", "output": "x"}, "show takes no output; it takes: name, trial"),
        ("plan", {"name": "/etc/passwd.yaml"}, f"/etc/passwd.yaml {outside}"),
        ("plan", {"name": "lr-rank", "data": "out/hosts.csv"}, f"out/hosts.csv {outside}"),
        ("preview", {"name": "lr-rank", "model": "~/model"}, f"~/model {outside}"),
        ("start", {"name": "lr-rank", "set": {"data": ["/etc/hosts"]}}, f"/etc/hosts {outside}"),
        (
            "start",
            {"name": "lr-rank", "set": {"trust_remote_code": True}},
            "trust_remote_code is for a person to set",
        ),
        ("start", {"name": "lr-rank", "set": {"confirm.top": 0}}, "confirm.top is for a person"),
        ("start", {"name": "none"}, "There is no sweep 'none'"),
        ("start", {"name": "lr-rank", "set": {"trials": 0}}, "lr-rank.yaml: trials is 0, must be"),
        (
            "enqueue",
            {"name": "rates", "settings": {"learning_rate": 1}},
            "learning_rate is 1, must",
        ),
        ("enqueue", {"name": "rates"}, "enqueue needs settings."),
        ("stop", {"name": "rates", "trial": 0}, "Trial 0 has ended already (complete)."),
        ("export", {"name": "none"}, "There is no study 'none'"),
        ("report", {"name": "none"}, "There is no study 'none'"),
    ]

    async def conversation(session):
        return [await session.call_tool(name, given) for name, given, _ in calls]

    for (name, given, said), result in zip(calls, talk(root, conversation), strict=True):
        assert result.is_error, (name, given)
        assert said in text_of(result), (name, given)
        assert "Traceback" not in text_of(result)
        assert "\n" not in text_of(result), text_of(result)


def tool(root, tool_name, **given):
    return run_tool(main, root, tool_name, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({" trust_remote_code": True}, "trust_remote_code is for a person to set"),
        ({"trust_remote_code=true #": 1}, "trust_remote_code is for a person to set"),
        ({" confirm.top": 0}, "confirm.top is for a person to set"),
        ({"scoring.test": False}, "scoring.test is for a person to set"),
        ({"scoring": {"test": False}}, "scoring is for a person to set"),
        ({"report_to": "wandb"}, "report_to is for a person to set"),
        ({"artifacts": "s3://bucket/x"}, "artifacts is for a person to set"),
        ({"data=/etc #": 1}, "/etc leads out of"),
        (["trust_remote_code=true"], "set must be an object"),
        (["data=/etc"], "set must be an object"),
        ("trust_remote_code=true", "set must be an object"),
        ({"scoring.tests": 1}, "lr-rank.yaml: scoring.tests"),
    ],
)
def test_keys_of_a_person_are_refused_in_each_form(root, given, said):
    with pytest.raises((HawsweepError, click.UsageError)) as fault:
        tool(root, "start", name="lr-rank", set=given)
    assert said in str(fault.value)


def test_copies_of_a_setting_count_as_one(root):
    tool(root, "enqueue", name="rates", settings=SETTING)
    for _ in range(10):
        with pytest.raises(HawsweepError, match="Trial 3 has this setting already"):
            tool(root, "enqueue", name="rates", settings=SETTING)
    assert len(json.loads(tool(root, "status", name="rates"))["trials"]) == 5  # one is the base


@pytest.mark.parametrize("kind", ["clear", "nothing"])
def test_export_is_what_the_verdict_says_to_use(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path / "studies")
    study = record(kind, place)
    said = judge_study(study, place).sentences[0]
    with pytest.raises(HawsweepError) as fault:
        tool(tmp_path, "export", name="rates")
    # The recorded trials have no adapters: past the verdict, the command itself says so.
    assert ("adapters.safetensors" in str(fault.value)) == (kind == "clear")
    assert (str(fault.value) == said) == (kind == "nothing")


def test_the_luckiest_of_a_hundred_like_settings_cannot_be_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path / "studies")
    study = record("nothing", place)
    made_with = study.user_attrs["spec"]
    # All are as good as the base, which has 0.12.
    luck = np.random.default_rng(0).normal(0.0, 0.1, (100, 16))
    for number, of_items in enumerate(luck, start=3):
        setting = {**SETTING, "learning_rate": 3e-4 + number * 1e-9}
        score = 0.12 + of_items.mean()
        study.add_trial(complete_trial(study, score, setting))
        samples = [{**s, "score": 0.12 + x} for s, x in zip(answers(0), of_items, strict=True)]
        write_samples(place.trial_dir("rates", number) / "samples.jsonl", samples)
    best = 3 + int(luck.mean(axis=1).argmax())
    assert study.best_trial.number == best
    assert study.best_value > 0.16

    def refusal():
        with pytest.raises(HawsweepError) as fault:
            tool(tmp_path, "export", name="rates")
        return str(fault.value)

    study.set_user_attr("confirm", [])
    assert "its best trials are to be trained with new seeds and tested" in refusal()
    again = [{"trial_number": best, "selected": study.best_value, "scores": [0.12, 0.121]}]
    study.set_user_attr("confirm", again)
    # Without a test split the interval takes account of the number of trials.
    assert refusal().startswith(f"Use no trial yet: trial {best} is not told apart")
    with_test = {**made_with, "fingerprints": {"test": "16:a"}}
    study.set_user_attr("spec", with_test)
    assert "is not judged here yet" in refusal()
    study.set_user_attr("test", {**study.user_attrs["test"], "trial_number": best})
    tested = place.trial_dir("rates", best) / "test_samples.jsonl"
    write_samples(tested, answers(0.12))
    assert refusal().startswith("Use no trial")


def test_study_without_a_test_is_exported_by_a_person(root):
    study = load_study(open_storage(Place(root / "studies"), only_look=False), "rates")
    made_with = study.user_attrs["spec"]
    study.set_user_attr("spec", {**made_with, "scoring": {"test": False}})
    with pytest.raises(HawsweepError, match="'rates' does not test its winner"):
        tool(root, "export", name="rates")


def complete_trial(study, score, settings):
    return create_trial(
        state=TrialState.COMPLETE,
        value=score,
        params=settings,
        distributions=distributions(spec_of(study).search),
        user_attrs={"score": score, "val_loss": 1.0},
    )


def test_agent_runs_a_sweep_from_its_check_to_its_end(tiny_model_dir, chat_data_dir, tmp_path):
    (tmp_path / "model").symlink_to(tiny_model_dir)
    sweep = {**really_embedded(tiny_sweep(tiny_model_dir, chat_data_dir)), "trials": 2}
    (tmp_path / "tiny.yaml").write_text(json.dumps(sweep))
    setting = {"learning_rate": 1e-3, "lora_parameters.rank": 2}

    async def conversation(session):
        async def call(tool_name, **given):
            result = await session.call_tool(tool_name, given)
            assert not result.is_error, text_of(result)
            return result.structured_content or text_of(result)

        assert (await call("validate", name="tiny.yaml"))["is_valid"]
        assert (await call("plan", name="tiny.yaml"))["seconds"] > 0
        assert "Study tiny runs in the background" in await call("start", name="tiny.yaml")
        deadline = time.monotonic() + 240
        while (await session.call_tool("status", {"name": "tiny"})).is_error:  # it is being made
            assert time.monotonic() < deadline
            await anyio.sleep(0.2)
        assert "Study tiny: 3 trials." in await call("extend", name="tiny", trials="+1")
        assert (await call("enqueue", name="tiny", settings=setting))["may_begin"]
        while (status := await call("status", name="tiny"))["left"]["is_running"]:
            assert time.monotonic() < deadline, status
            await anyio.sleep(1)
        report = await call("report", name="tiny", markdown=True)
        return status, report, await session.call_tool("export", {"name": "tiny"})

    status, report, exported = talk(tmp_path, conversation)
    complete = [row for row in status["trials"] if row["state"] == "complete"]
    assert len(complete) == 3
    assert setting.items() <= max(complete, key=lambda row: int(row["label"]))["settings"].items()
    assert status["verdict"]["sentences"][0] in report
    assert exported.is_error is not status["verdict"]["ships"]
    if exported.is_error:
        assert text_of(exported) == status["verdict"]["sentences"][0]
    else:
        assert exported.structured_content["trial_number"] >= 0


def test_server_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    done = CliRunner().invoke(main, ["mcp"])
    assert done.exit_code == 1
    assert "This needs the package mcp: pip install mcp" in done.output
