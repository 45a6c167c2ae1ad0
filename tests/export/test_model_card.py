"""Model cards: what Hugging Face reads, what a person reads, and what is not told."""

import json

import pytest
from huggingface_hub import ModelCard

from hawsweep.export import model_card
from hawsweep.export.card_metadata import name_of, reference_name
from hawsweep.export.fidelity import Check
from hawsweep.export.folder import Part
from hawsweep.export.model_card import Released, card
from hawsweep.markdown import fenced
from hawsweep.results.review import ReviewSession

HOSTILE = "x | y `z` <script>alert(1)</script> [a](http://b)\n# Title"


def card_of(made, number=None, **released):
    study = made.study
    best = study.best_trial.number if number is None else number
    return card(study, made.place, study.get_trials()[best], Released(**released))


def change(made, **changes):
    study = made.study
    study.set_user_attr("spec", {**study.user_attrs["spec"], **changes})


def test_card_without_an_export_has_metadata_and_numbers(made):
    text = card_of(made)
    read = ModelCard(text)
    trial = made.study.best_trial
    assert read.data.library_name == "mlx"
    assert read.data.pipeline_tag == "text-generation"
    assert read.data.model_name == "tiny"
    scores = {
        (each.dataset_split, each.metric_name): each.metric_value for each in read.data.eval_results
    }
    assert scores["validation", "mean chrF"] == pytest.approx(trial.value, abs=1e-4)
    test = made.study.user_attrs["test"]["trial"]
    assert scores["test", "corpus BLEU"] == pytest.approx(test["bleu"], abs=1e-4)
    # What is not known is not there: no license, no language, no base on the hub.
    assert {"license", "language", "base_model", "datasets"}.isdisjoint(read.data.to_dict())
    assert f"| **trial {trial.number}** | {trial.user_attrs['val_loss']:.3f} " in text
    assert "| base | " in text
    prints = made.study.user_attrs["spec"]["fingerprints"]
    for split in ("train", "valid", "test"):
        assert f"| {split} | `{prints[split]}` |" in text
    assert "Use trial" in text
    assert "Not measured: " in text
    assert f'"learning_rate": {trial.params["learning_rate"]}' in text
    assert "--system-prompt 'Translate Hawaiian to English.'" in text
    assert "## Checks of these files" not in text
    assert str(made.studies.parent) not in text
    assert str(made.model_dir.parent) not in text


def test_sweep_in_a_card_can_be_started(made, tmp_path):
    from hawsweep.spec.read import read_sweep

    text = card_of(made)
    content = text.split("```yaml\n")[1].split("\n```")[0]
    (tmp_path / "again.yaml").write_text(content, encoding="utf-8")
    spec = read_sweep(tmp_path / "again.yaml")
    assert spec.model == made.model_dir.name
    assert spec.search.keys() == made.study.user_attrs["spec"]["search"].keys()


def test_trial_that_was_not_tested_says_so(made):
    text = card_of(made, 1 - made.study.user_attrs["test"]["trial_number"])
    assert "The test split was not opened for this trial." in text
    assert "There is no score on prompts that took no part in the choice" in text
    assert "Use trial" not in text
    assert "split: test" not in text


def test_base_and_data_on_the_hub_are_named(made, monkeypatch):
    change(made, model="mlx-community/some-4bit", data=[{"path": "someone/pairs"}])
    monkeypatch.setattr(model_card, "system_message", lambda _: None)
    read = ModelCard(card_of(made))
    assert read.data.base_model == "mlx-community/some-4bit"
    assert read.data.to_dict()["base_model_relation"] == "adapter"
    assert read.data.datasets == ["someone/pairs"]
    assert read.data.eval_results[0].dataset_type == "someone/pairs"


def test_base_of_a_revision_is_its_repository(made, monkeypatch):
    change(made, model="mlx-community/some-4bit@v1.0")
    monkeypatch.setattr(model_card, "system_message", lambda _: None)
    read = ModelCard(card_of(made))
    assert read.data.base_model == "mlx-community/some-4bit"
    assert "`mlx-community/some-4bit@v1.0`, fine-tuned on" in read.text
    assert "--model mlx-community/some-4bit --" in read.text  # mlx-lm takes no revision


def test_license_is_the_bases_own(made):
    path = made.model_dir / "README.md"
    assert "license" not in ModelCard(card_of(made)).data.to_dict()
    try:
        path.write_text("---\nlicense: gemma\n---\n", encoding="utf-8")
        assert ModelCard(card_of(made)).data.license == "gemma"
        path.write_text("---\nlicense: [a, b]\n---\n", encoding="utf-8")
        assert "license" not in ModelCard(card_of(made)).data.to_dict()
    finally:
        path.unlink()


def test_bundled_base_is_named_as_on_the_hub(made):
    change(made, model="smollm2-135m-instruct")
    read = ModelCard(card_of(made))
    assert read.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert read.data.license == "apache-2.0"
    assert "model: smollm2-135m-instruct" in read.text  # as a sweep names it


def test_card_for_a_repository_uses_it(made):
    text = card_of(made, repo="me/haw")
    assert "hf download me/haw --local-dir adapters" in text
    assert "\n# haw\n" in text
    assert f"--max-tokens {made.study.user_attrs['spec']['scoring']['max_tokens']} --temp 0" in text
    peft = Part("peft", "peft", 0, Check(0.5, 0.5, 1.0, 1.0))
    for repo, place in ((None, '"peft"'), ("me/haw", '"me/haw", subfolder="peft"')):
        assert f"from_pretrained(base, {place})" in card_of(made, repo=repo, parts=[peft])


def test_person_who_judged_is_told_of(made):
    assert "No person judged the answers." in card_of(made)
    session = ReviewSession(made.study, made.place, 4)
    session.say(session.question(), "equal")
    text = card_of(made, session.result().trial)
    assert "No person judged" not in text
    assert "Judged by a person: In a blind review of 1 " in text


def test_switch_of_the_bases_template_is_named(made):
    text = card_of(made, switches={"enable_thinking": False})
    assert """--chat-template-config '{"enable_thinking": false}'""" in text


def test_data_that_moved_leaves_the_system_message_out(made):
    change(made, data=[{"path": "/nowhere/pairs"}])
    text = card_of(made)
    assert "--system-prompt" not in text
    assert "/nowhere" not in text
    assert "`pairs`" in text


def test_texts_of_others_stay_texts(made):
    change(made, description=HOSTILE)
    samples = (
        made.place.study_dir("tiny") / "base" / "test_samples.jsonl",
        made.trial_dir(made.study.user_attrs["test"]["trial_number"]) / "test_samples.jsonl",
    )
    for path in samples:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = (json.dumps({**row, "group": HOSTILE}) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    text = card_of(made)
    rendered = text.split("<details>")[0].split("---\n", 2)[2]
    assert "<script>" not in rendered
    assert "\n# Title" not in rendered
    assert "x \\| y \\`z\\` \\<script\\>" in rendered
    row = next(line for line in rendered.splitlines() if line.startswith("| x "))
    assert row.replace("\\|", "").count("|") == 6
    assert ModelCard(text).data.library_name == "mlx"


def test_code_block_is_not_ended_by_what_is_in_it():
    assert fenced("a\n```\nb", "text") == "````text\na\n```\nb\n````"


def test_names_tell_nothing_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "model").mkdir()
    for reference, name in {
        "/home/me/secret/model": "model",
        "~/models/mine": "mine",
        "me/model": "model",  # a folder here
        "mlx-community/gemma-3-4b-it-4bit": "mlx-community/gemma-3-4b-it-4bit",
        "./pairs.csv": "pairs.csv",
        "../up/pairs.csv": "pairs.csv",
        "phrasebook": "phrasebook",
    }.items():
        assert name_of(reference) == reference_name(reference) == name
    assert name_of("smollm2-135m-instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
