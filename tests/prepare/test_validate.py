import json
import shutil
from collections import namedtuple

import pytest
import tiny_llama
from chat_templates import KINDS, make_tokenizer
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.machine import memory
from hawsweep.models import resolve
from hawsweep.prepare.finding import worst
from hawsweep.prepare.validate import validate_sweep
from hawsweep.running.steer import extend
from hawsweep.spec.read import check_sweep
from hawsweep.spec.sweep import short_names
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

GEMMA = "mlx-community/gemma-3-4b-it-4bit"


@pytest.fixture
def content(tiny_model_dir, chat_data_dir):
    return {
        "model": str(tiny_model_dir),
        "data": str(chat_data_dir),
        "train": {"mask_prompt": True, "num_layers": 2, "iters": 20, "steps_per_eval": 10},
        "search": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "scoring": {"metric": "chrf", "max_tokens": 8},
        "pruning": {"name": "none"},
        "trials": 4,
        "timeout": "1h",
    }


def found_in(content, place, subject):
    """What is said of a subject."""
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    return [each for each in findings if each.subject == subject]


def test_space_with_fewer_settings_than_trials_is_told(content, place):
    content["search"] = {"learning_rate": {"choices": [1e-4, 1e-3]}}
    ok, warned = found_in(content, place, "sweep")
    assert (ok.state, warned.state) == ("ok", "warning")
    assert warned.text == "the search space has 2 settings, fewer than trials, 4"
    content["sampler"] = {"name": "random"}
    assert len(found_in(content, place, "sweep")) == 1


def test_sweep_in_which_no_trial_can_pause_is_told(content, place):
    del content["pruning"]
    content["train"] |= {"iters": 100, "steps_per_eval": 50}
    assert found_in(content, place, "pruning") == []
    content["train"]["grad_accumulation_steps"] = 3  # 16 updates at 50
    (found,) = found_in(content, place, "pruning")
    assert (found.state, found.remedy) == ("warning", "Raise iters, or lower steps_per_eval.")
    assert found.text == (
        "no trial pauses, each is trained whole: with iters 100 and steps_per_eval 50 no "
        "evaluation before the end has 20 updates"
    )
    content["pruning"] = {"name": "none"}
    assert found_in(content, place, "pruning") == []


def test_references_longer_than_the_embedder_reads_are_told(content, place, tmp_path):
    listed = [pair(f"he {n}", "fish " * (300 if n < 3 else 9)) for n in range(12)]
    content["data"] = records(tmp_path / "long", train=listed, valid=listed[:5])
    assert len(found_in(content, place, "embedder")) == 1
    content["scoring"] = {"metric": "semantic_similarity", "max_tokens": 8}
    told, _ = found_in(content, place, "embedder")
    assert told.state == "warning"
    assert "3 of 5 references are longer" in told.text


def test_range_of_iters_that_is_taken_as_its_end_is_told(content, place):
    content["search"]["iters"] = {"choices": [60, content["train"].pop("iters") + 80]}
    (found,) = found_in(content, place, "iters")
    assert found.state == "ok"
    assert found.text.startswith("each trial is trained for 100 iterations")


def test_sweep_that_can_be_started_has_no_fault(content, place):
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    by_subject = {each.subject: each for each in findings}
    assert worst(findings) != "fault"
    assert by_subject["sweep"].text == "4 trials, varying learning_rate"
    assert by_subject["data"].text == "24 train, 8 valid, 8 test"
    for subject in ("model", "lengths", "metric", "embedder", "memory", "disk", "time"):
        assert by_subject[subject].state == "ok", by_subject[subject]
    assert by_subject["prompts"].state == "warning"  # eight
    assert not place.studies_dir.exists()


def records(folder, **splits):
    folder.mkdir()
    for name, listed in splits.items():
        text = "".join(f"{json.dumps(each)}\n" for each in listed)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def pair(source, answer):
    return {"prompt": source, "completion": answer}


MANY = [pair(f"{i} nani", f"pretty {i}") for i in range(12)]
DATA = {
    "plain text": (
        {"train": [{"text": "aloha"}] * 4, "valid": [{"text": "aloha"}] * 4},
        ("data", "fault", "plain text, which has no prompt to mask"),
    ),
    "no answers": (
        {"train": MANY, "valid": [{"messages": [{"role": "user", "content": "a"}]}]},
        ("data", "fault", "valid.jsonl:1 has no answer to compare with"),
    ),
    "duplicates": (
        {"train": [*MANY, MANY[0]], "valid": [pair("lā", "sun")]},
        ("duplicates", "warning", "1 of 13 records of train are duplicates"),
    ),
    "empty": (
        {"train": MANY, "valid": [pair("lā", " ")]},
        ("empty", "warning", "1 of 1 records of valid are empty on one side"),
    ),
    "leak": (
        {"train": MANY, "valid": [MANY[3]]},
        ("leak", "warning", "1 of 1 sources of valid are in train too"),
    ),
    "no test": (
        {"train": MANY, "valid": [pair("lā", "sun")]},
        ("test", "warning", "there is no test split"),
    ),
    "no validation": ({"train": MANY}, ("data", "fault", "has no valid.jsonl")),
    "duplicates in another writing": (
        {"train": [*MANY, pair("kāu ʻili", "a"), pair("ka\u0304u 'ili", "a")], "valid": MANY[:1]},
        ("duplicates", "warning", "1 of 14 records of train are duplicates"),
    ),
    "leak in another writing": (
        {"train": [*MANY, pair("He keiki ʻuʻuku", "a")], "valid": [pair("He keiki ‘u`uku", "b")]},
        ("leak", "warning", "1 of 1 sources of valid are in train too"),
    ),
    "composed and decomposed": (
        {"train": [*MANY, pair("kāu", "a"), pair("pā", "b")], "valid": [pair("ka\u0304", "c")]},
        (
            "writing",
            "warning",
            "composed characters (Unicode NFC): 2, with decomposed ones (NF",
        ),
    ),
    "several okinas": (
        {"train": [*MANY, pair("u'i, ʻaʻole", "I'd")], "valid": [pair("No ‘oe.", "It’s yours")]},
        ("writing", "warning", "the okina is written ʻ 2 times, ' 1 time, ‘ 1 time"),
    ),
    "answer to nothing": (
        {"train": MANY, "valid": [{"messages": [{"role": "assistant", "content": "a"}]}]},
        ("data", "fault", "valid.jsonl:1 has only the assistant's messages"),
    ),
    "refused in test alone": (
        {"train": MANY, "valid": MANY[:1], "test": [MANY[2], {"prompt": "a", "response": "b"}]},
        ("data", "fault", "test.jsonl:2 has the keys prompt, response, must be one of"),
    ),
    "tools as text": (
        {"train": MANY, "valid": [{**MANY[0], "tools": "lookup"}]},
        ("data", "fault", "valid.jsonl:1, in its tools, is not JSON"),
    ),
    "too few for a batch": (
        {"train": MANY[:2], "valid": MANY[:1]},
        ("data", "fault", "batch_size is 4, but the split train has 2 examples"),
    ),
}


@pytest.mark.parametrize("kind", DATA)
def test_fault_of_the_data_is_said(content, place, tmp_path, kind):
    splits, (subject, state, says) = DATA[kind]
    content["data"] = records(tmp_path / "data", **splits)
    found = found_in(content, place, subject)
    assert any(each.state == state and says in each.text for each in found), found


SYSTEM, USER, ASSISTANT = (
    {"role": role, "content": "a"} for role in ("system", "user", "assistant")
)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(
    "messages", [[SYSTEM, USER, ASSISTANT], [USER, USER, ASSISTANT], [USER, ASSISTANT, ASSISTANT]]
)
def test_record_that_the_chat_template_refuses_is_named_in_any_split(
    content, place, tmp_path, split, messages
):
    """Gemma's template knows no system message, and roles must alternate."""
    tokenizer = make_tokenizer(KINDS["Gemma 1 to 3"])
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    tiny_llama.save(tmp_path / "gemma", tokenizer, seed=1, num_key_value_heads=2, **sizes)
    splits = {name: [*MANY] for name in ("train", "valid", "test")}
    splits[split].append({"messages": messages})
    content["data"] = records(tmp_path / "data", **splits)
    content["model"] = str(tmp_path / "gemma")
    (found,) = (each for each in found_in(content, place, "data") if each.state == "fault")
    assert found.text == (
        f"{content['data']}/{split}.jsonl:{len(MANY) + 1}: the model's chat template refuses the "
        "record: Conversation roles must alternate user/assistant"
    )


def test_what_is_not_learned_as_it_stands_is_said(content, place, tmp_path):
    splits = {"train": [*MANY, pair("What is <|im_end|>?", "An end")], "valid": MANY[:1]}
    content["data"] = records(tmp_path / "data", **splits)
    (found,) = found_in(content, place, "tokens")
    assert found.state == "warning"
    assert found.text == (
        f"train: a control token that the text spells becomes that token: 1 of {len(MANY) + 1} "
        f"records, the first is {content['data']}/train.jsonl:{len(MANY) + 1}, <|im_end|>."
    )
    assert found.remedy == "hawsweep preview NAME shows what is learned."


def test_mixed_writing_is_not_said_of_normalized_data(content, place, tmp_path):
    mixed = [pair("u'i", "a"), pair("kāu ʻili", "b"), pair("ka\u0304", "c")]
    folder = records(tmp_path / "data", train=[*MANY, *mixed], valid=[pair("lā", "sun")])
    content["data"] = {"path": folder, "normalize": "none"}
    for found in found_in(content, place, "writing"):
        assert "Set data.normalize: " in found.remedy
    assert len(found_in(content, place, "writing")) == 2
    content["data"] = {"path": folder, "normalize": "nfc"}
    assert len(found_in(content, place, "writing")) == 1
    content["data"] = {"path": folder, "normalize": "okina"}
    assert found_in(content, place, "writing") == []


CHANGES = {
    "truncated": (
        {"train": {"max_seq_length": 24, "mask_prompt": False}},
        ("lengths", "warning", "max_seq_length 24 truncates"),
    ),
    "nothing left": (
        {"train": {"max_seq_length": 8, "mask_prompt": True}},
        ("lengths", "fault", "max_seq_length 8 leaves nothing to learn from"),
    ),
    "nothing left at the shortest": (
        {"search": {"max_seq_length": {"choices": [8, 512]}}},
        ("lengths", "fault", "max_seq_length 8 leaves nothing to learn from"),
    ),
    "model of the hub": ({"model": GEMMA}, ("model", "warning", "is not here; start downloads")),
    "model of the hub, of unknown shape": (
        {"model": "who/knows"},
        ("memory", "warning", "what fits is not known before the model is here"),
    ),
    "model of no one": ({"model": "nobody"}, ("model", "fault", "nobody is not here: no bundled")),
    "data of no one": ({"data": "nothing.csv"}, ("data", "fault", "'nothing.csv' was not found")),
    "embedder": (
        {"scoring": {"embedder": "who/knows"}},
        ("embedder", "warning", "who/knows is not here; start downloads it"),
    ),
    "metric": (
        {"scoring": {"metric": "nowhere:judge"}},
        ("metric", "fault", "nowhere"),
    ),
    "optimizer": (
        {"train": {"optimizer_config": {"adam": {"speed": 3}}}},
        ("metric", "fault", "speed"),
    ),
    "memory": ({"memory": {"budget": "1MB"}}, ("memory", "fault", "No setting of this sweep fits")),
    "blocks": (
        {"train": {"num_layers": 16}},
        ("memory", "fault", "num_layers is 16, but the model has 3 blocks"),
    ),
    "rank": (  # four heads, two for keys and values: half of 64
        {"search": {"lora_parameters.rank": {"choices": [8, 64]}}},
        ("memory", "fault", "rank is 64, above the width 32 of the narrowest"),
    ),
    "timeout": ({"timeout": "1s"}, ("time", "warning", "the timeout is 1 s")),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_fault_of_the_sweep_with_model_or_machine_is_said(content, place, kind):
    changes, (subject, state, says) = CHANGES[kind]
    found = found_in({**content, **changes}, place, subject)
    assert any(each.state == state and says in each.text for each in found), found


def test_all_that_is_wrong_is_said_at_once_and_nothing_twice(content, place):
    content |= {"model": "nobody", "data": "nothing.csv", "scoring": {"metric": "nowhere:judge"}}
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    faults = [each.subject for each in findings if each.state == "fault"]
    assert faults == ["data", "model", "metric"]


def test_each_of_several_models_is_looked_at_and_what_they_share_said_once(content, place):
    content["search"]["model"] = {"choices": [content.pop("model"), "nobody"]}
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    assert [each.state for each in findings if each.subject == "model"] == ["ok", "fault"]
    for subject in ("data", "memory", "disk", "time"):
        assert len([each for each in findings if each.subject == subject]) == 1


def test_model_that_does_not_fit_beside_one_that_does_is_left_out(content, place):
    small = content.pop("model")
    content["search"]["model"] = {"choices": [small, GEMMA]}
    content["memory"] = {"budget": "1500MB"}
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    fits, not_fits = (each for each in findings if each.subject == "memory")
    names = short_names((small, GEMMA))
    assert (fits.state, fits.text.startswith(f"{names[small]}: ")) == ("ok", True)
    says = f"{names[GEMMA]}: No setting"
    assert (not_fits.state, not_fits.text.startswith(says)) == ("warning", True)
    assert not_fits.remedy == "It is left out; the other models go on."
    content["memory"] = {"budget": "1MB"}
    findings = validate_sweep(check_sweep(content, "the sweep"), "a-study", place)
    assert [each.state for each in findings if each.subject == "memory"] == ["fault", "fault"]


def test_quantized_model_trained_whole_is_a_fault(content, place, quantized_dir):
    content |= {"model": str(quantized_dir)}
    content["search"] = {"fine_tune_type": {"choices": ["lora", "full"]}}
    (found,) = found_in(content, place, "model")
    assert (found.state, "is quantized" in found.text) == ("fault", True)


def test_model_without_weights_or_chat_template_is_a_fault(
    content, place, tiny_model_dir, tmp_path
):
    import shutil

    shutil.copytree(tiny_model_dir, tmp_path / "model")
    content["model"] = str(tmp_path / "model")
    for path in (tmp_path / "model").glob("chat_template*"):
        path.unlink()
    (found,) = found_in(content, place, "data")
    assert (found.state, "has no chat template" in found.text) == ("fault", True)
    (tmp_path / "model" / "model.safetensors").unlink()
    (found,) = found_in(content, place, "model")
    assert (found.state, "has no weights" in found.text) == ("fault", True)


def test_bundled_model_that_was_never_converted_is_no_fault(content, place, monkeypatch):
    monkeypatch.setattr(resolve, "find_model", lambda name: None)
    (found,) = found_in({**content, "model": "smollm2-135m-instruct"}, place, "model")
    assert (found.state, "the first start converts it" in found.text) == ("ok", True)


def test_settings_that_do_not_fit_beside_others_that_do_are_a_warning(content, place, monkeypatch):
    content |= {"model": GEMMA, "data": "phrasebook"}
    content["train"] = {"num_layers": 16, "batch_size": 1, "mask_prompt": True}
    content["search"] = {"lora_parameters.rank": {"choices": [8, 1024]}}
    machine = memory.Machine(16 * 10**9, 14 * 10**9, gpu_bytes=12 * 10**9)
    monkeypatch.setattr("hawsweep.machine.backend.device_here", lambda: "metal")
    monkeypatch.setattr(memory, "this_machine", lambda: machine)
    (found,) = found_in(content, place, "memory")
    assert (found.state, "does not fit" in found.text) == ("warning", True)


def test_disk_without_room_is_a_fault(content, place, monkeypatch):
    usage = namedtuple("Usage", "total used free")(0, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    (found,) = found_in(content, place, "disk")
    assert (found.state, "0.00 GB are free on the disk" in found.text) == ("fault", True)


def test_leak_of_a_file_that_is_split_here_has_a_key_as_remedy(content, place, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("haw,en\n" + "".join(f"ae {n // 2},yes {n}\n" for n in range(80)))
    data = {"path": str(table), "source": "haw", "target": "en", "valid_fraction": 0.3}
    by_record, by_source = (
        [
            each
            for each in found_in({**content, "data": asked}, place, "leak")
            if "source" in each.text
        ]
        for asked in (data, {**data, "split_by": "source"})
    )
    assert by_record
    assert all("data.split_by: source keeps those" in each.remedy for each in by_record)
    assert not by_source


def test_finished_study_is_said_to_be_finished(content, place):
    spec = check_sweep({**content, "trials": 1}, "the sweep")
    study, _ = create_study(open_storage(place, create=True), place, "a-study", spec, {})
    study.tell(study.ask(), 0.5)
    (found,) = found_in({**content, "trials": 1}, place, "study")
    assert "study 'a-study' is finished: 1 of 1 trial" in found.text
    study.set_user_attr("how", {"trials": 1})  # as a start does
    extend("a-study", place, "+1", None)
    (found,) = found_in({**content, "trials": 1}, place, "study")
    assert (found.state, found.text) == ("ok", "start goes on with study 'a-study'")
    (found,) = found_in({**content, "trials": 2}, place, "study")
    assert (found.state, found.text) == ("ok", "start goes on with study 'a-study'")


def test_study_of_that_name_is_gone_on_with_or_refused(content, place):
    storage = open_storage(place, create=True)
    create_study(storage, place, "a-study", check_sweep(content, "the sweep"), {})
    storage.remove_session()
    storage.engine.dispose()
    (found,) = found_in(content, place, "study")
    assert (found.state, found.text) == ("ok", "start goes on with study 'a-study'")
    # Without a result the next start makes it anew.
    (found,) = found_in({**content, "seed": 5}, place, "study")
    assert found.state == "ok"


def test_study_with_results_of_another_spec_or_other_data_is_a_fault(content, place, tmp_path):
    records = [{"prompt": f"ke kumu {n}", "completion": f"the teacher {n}"} for n in range(40)]
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid", "test"):
        lines = [json.dumps({**each, "prompt": f"{split} {each['prompt']}"}) for each in records]
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    content = {**content, "data": str(data)}
    spec = check_sweep(content, "the sweep")
    known = load_data(spec.data).fingerprint()
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "a-study", spec, known)
    study.set_user_attr("base", {"val_loss": 3.0})
    (found,) = found_in(content, place, "study")
    assert (found.state, found.text) == ("ok", "start goes on with study 'a-study'")
    (found,) = found_in({**content, "seed": 5}, place, "study")
    assert (found.state, "seed was 0, is 5" in found.text) == ("fault", True)
    with (data / "train.jsonl").open("a") as file:
        file.write("\n" + json.dumps(records[0]))
    (found,) = found_in(content, place, "study")
    assert (found.state, "the content of train has changed" in found.text) == ("fault", True)
    assert "Start it under another name with --study" in found.text


def test_revision_of_a_repository_that_is_not_here_is_a_warning(content, place, hub_cache):
    model = "mlx-community/gemma-3-4b-it-4bit@main"
    (found,) = found_in({**content, "model": model}, place, "model")
    says = f"{model} is not here; start downloads it from Hugging Face"
    assert (found.state, found.text) == ("warning", says)


def test_columns_of_a_table_are_said(content, place, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,x,haw\n" + "".join(f"{n},word {n},haw {n}\n" for n in range(40)))
    (found,) = found_in({**content, "data": str(path)}, place, "columns")
    says = f"{path}: haw to x, the two that hold words; not used: id"
    assert (found.state, found.text) == ("ok", says)


def validate(content, tmp_path, *options):
    path = tmp_path / "a.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    where = ["--studies-dir", str(tmp_path / "studies")]
    command = ["validate", str(path), *where, *options]
    return CliRunner().invoke(main, command, env={"COLUMNS": "200"})


def test_command_ends_with_0_and_says_how_to_start(content, tmp_path):
    done = validate(content, tmp_path)
    assert done.exit_code == 0, done.output
    assert f"It can be started, with 1 warning: hawsweep start {tmp_path}/a.yaml" in done.output
    plain = json.loads(validate(content, tmp_path, "--json").stdout)
    assert plain["is_valid"] is True
    assert plain["findings"][0] == {
        "subject": "sweep",
        "state": "ok",
        "text": "4 trials, varying learning_rate",
        "remedy": "",
    }


def test_command_ends_with_1_for_a_fault_of_data_or_model(content, tmp_path):
    done = validate(content, tmp_path, "--model", "nobody", "--data", "[red]")
    assert done.exit_code == 1
    assert "2 faults: start would fail." in done.output
    assert "'[red]' was not found" in done.output  # no markup of rich's
    plain = json.loads(validate(content, tmp_path, "--json", "--model", "nobody").stdout)
    assert plain["is_valid"] is False


def test_command_says_every_fault_of_the_file_at_once(content, tmp_path):
    content |= {"trials": 0, "timeout": "soon", "train": {"iter": 3}}
    done = validate(content, tmp_path)
    assert done.exit_code == 1
    for said in ("has 3 faults", "trials is 0", "timeout is 'soon'", "did you mean 'iters'"):
        assert said in done.stderr
    plain = validate(content, tmp_path, "--json")
    assert plain.exit_code == 1
    (found,) = json.loads(plain.stdout)["findings"]
    assert "trials is 0" in found["text"]


def test_command_takes_a_sweeps_name_and_changes(tmp_path):
    where = ["--studies-dir", str(tmp_path)]
    command = ["validate", "lr-rank", *where, "--set", "trials=3", "--json"]
    found = json.loads(CliRunner().invoke(main, command).stdout)
    assert found["findings"][0]["text"].startswith("3 trials, varying learning_rate, rank")
    shown = CliRunner().invoke(main, [*command[:-1], "--data", "phrasebook", "--study", "mine"])
    again = " ".join(shown.stdout.split()).partition("hawsweep start lr-rank ")[2]
    assert "--study=mine --data=phrasebook --set=trials=3" in again
    done = CliRunner().invoke(main, ["validate", "lr-rnak"])
    assert (done.exit_code, "did you mean 'lr-rank'" in done.stderr) == (1, True)
