"""Exports of a small study: what is written, checked, added and refused."""

import json
import shlex
import shutil
from dataclasses import replace

from hawsweep.machine.backend import mx

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.errors import ExportError, StudyError
from hawsweep.export import parts
from hawsweep.export.folder import MANIFEST, Origin, read_parts
from hawsweep.export.fuse import copy_tokenizer
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE
from hawsweep.views.terminal.export import export_picture, next_commands


def fault_of(made, **asked):
    with pytest.raises(ExportError) as raised:
        made.export(**asked)
    return str(raised.value)


def best(made):
    return made.export().trial_number


def left_over(made):
    return [path.name for path in made.folder.parent.iterdir() if path.name.startswith("~")]


def texts(folder):
    kinds = {".md", ".json", ""}
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds)
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_adapter_and_fused_model_answer_as_the_trial_did(made):
    exported = made.export(fuse=True, ollama=True)
    assert made.names() == ["Modelfile", "README.md", "adapters", "export.json", "fused"]
    assert exported.new == ("adapters", "fused")
    trial = made.study.get_trials()[exported.trial_number]
    for part in exported.parts:
        assert part.check.expected == exported.score == trial.value
        assert part.check.score == pytest.approx(trial.value)
        assert (part.check.identical, part.check.near) == (1.0, 1.0)
        assert not part.dequantized
        assert part.n_bytes > 0
    source = made.trial_dir(exported.trial_number) / "adapters"
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        assert (made.folder / "adapters" / name).read_bytes() == (source / name).read_bytes()
    assert left_over(made) == []
    assert "FROM ./fused\n" in (made.folder / "Modelfile").read_text(encoding="utf-8")
    for name, text in texts(made.folder).items():
        assert str(made.studies.parent) not in text, name
        assert str(made.model_dir.parent) not in text, name


def test_what_is_asked_for_later_is_added(made):
    first = made.export()
    weights = made.folder / "adapters" / WEIGHTS_FILE
    before = weights.stat()
    assert made.names() == ["README.md", "adapters", "export.json"]
    second = made.export(fuse=True)
    assert first.new == ("adapters",)
    assert second.new == ("fused",)
    assert [part.name for part in second.parts] == ["adapters", "fused"]
    assert weights.stat() == before
    third = made.export(ollama=True)  # the fused model is there
    assert third.new == ()
    assert third.has_modelfile
    assert not second.has_modelfile
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert card == (made.folder / "fused" / "README.md").read_text(encoding="utf-8")
    for name in ("adapters", "fused"):
        assert f"\n| {name} |" in card
    assert "there already, with adapters, " in fault_of(made, fuse=True, ollama=True)


def test_export_of_another_trial_is_kept_without_force(made):
    number = best(made)
    kept = (made.folder / "adapters" / WEIGHTS_FILE).read_bytes()
    said = fault_of(made, trial_number=1 - number)
    assert f"of trial {number} of tiny. Use --force to replace it, or --output" in said
    assert (made.folder / "adapters" / WEIGHTS_FILE).read_bytes() == kept
    assert made.export(trial_number=1 - number, force=True).trial_number == 1 - number
    assert (made.folder / "adapters" / WEIGHTS_FILE).read_bytes() != kept
    assert left_over(made) == []


def test_export_is_of_its_adapter_whatever_the_studys_name(made):
    (part,) = made.export().parts
    content = json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))
    now = Origin(**{**content["origin"], "study": "renamed"})
    assert read_parts(made.folder, now, force=False, is_own=True) == {"adapters": part}
    with pytest.raises(ExportError, match=r"of trial \d of tiny"):
        read_parts(made.folder, now, force=False, is_own=False)


def test_adapter_that_was_trained_again_is_not_mixed_with_an_older_export(made):
    number = best(made)
    weights = made.trial_dir(number) / "adapters" / WEIGHTS_FILE
    shutil.copy2(made.trial_dir(1 - number) / "adapters" / WEIGHTS_FILE, weights)
    assert "whose adapter was another one then" in fault_of(made, fuse=True)


def other_checkpoint(made):
    trial = made.study.get_trials()[0]
    kept = sorted((made.trial_dir() / "checkpoints").iterdir())
    return next(path for path in kept if int(path.name) != trial.user_attrs["best_iteration"])


def test_checkpoint_is_exported_and_measured(made):
    folder = other_checkpoint(made)
    exported = made.export(trial_number=0, checkpoint=int(folder.name))
    (adapter,) = exported.parts
    source = (folder / WEIGHTS_FILE).read_bytes()
    assert (made.folder / "adapters" / WEIGHTS_FILE).read_bytes() == source
    assert exported.score is None
    assert adapter.check.expected is None
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert f"its checkpoint at iteration {int(folder.name)}" in card
    assert "model-index" not in card  # those scores are the best checkpoint's
    added = made.export(trial_number=0, checkpoint=int(folder.name), fuse=True)
    assert added.new == ("fused",)
    assert added.parts[-1].check.expected == adapter.check.score
    assert added.parts[-1].check.identical == 1.0


def test_checkpoint_that_is_the_trials_best_has_its_scores(made):
    at = made.study.get_trials()[0].user_attrs["best_iteration"]
    exported = made.export(trial_number=0, checkpoint=at)
    assert exported.score == made.study.get_trials()[0].value
    assert exported.parts[0].check.identical == 1.0


def test_checkpoint_that_was_not_kept_is_refused(made):
    kept = sorted(int(path.name) for path in (made.trial_dir() / "checkpoints").iterdir())
    with pytest.raises(
        StudyError, match=f"no checkpoint of iteration 3; it has iterations {kept[0]}, {kept[1]}."
    ):
        made.export(trial_number=0, checkpoint=3)
    shutil.rmtree(made.trial_dir() / "checkpoints")
    with pytest.raises(StudyError, match=r"it kept none\. Set train\.keep_checkpoints"):
        made.export(trial_number=0, checkpoint=kept[0])


def test_adapter_that_does_not_do_what_the_trial_did_is_refused(made):
    path = made.trial_dir(best(made)) / "adapters" / WEIGHTS_FILE
    shutil.rmtree(made.folder)
    weights = mx.load(str(path))
    mx.save_safetensors(str(path), {name: value * 0 for name, value in weights.items()})
    assert "loaded anew, scores 0.0000 (trial" in fault_of(made, fuse=True)
    assert not made.folder.exists()
    assert left_over(made) == []


def test_export_that_is_killed_leaves_what_was_there(made, monkeypatch):
    made.export()
    before = made.names()
    monkeypatch.setattr(
        parts, "fuse_checked", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        made.export(fuse=True)
    assert made.names() == before
    assert left_over(made) == []
    monkeypatch.undo()
    # What one that was killed for good has moved, but not noted, is made again.
    (made.folder / "fused").mkdir()
    (made.folder / "fused" / "half").touch()
    made.export(fuse=True)
    assert not (made.folder / "fused" / "half").exists()
    assert (made.folder / "fused" / "config.json").is_file()


def test_folder_that_hawsweep_did_not_make_is_left_alone(made, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").touch()
    for force in (False, True):
        assert "is no export of hawsweep: nothing in it" in fault_of(made, output=home, force=force)
    assert [path.name for path in home.iterdir()] == ["precious"]
    exported = made.export(output=tmp_path / "new" / "place")
    assert (tmp_path / "new" / "place" / "adapters" / WEIGHTS_FILE).is_file()
    assert exported.folder == tmp_path / "new" / "place"
    assert not made.folder.exists()


def test_damaged_list_of_an_export_is_told(made):
    made.export()
    (made.folder / "export.json").write_text('{"origin": {"of": 1}}', encoding="utf-8")
    assert "export.json is damaged" in fault_of(made, fuse=True)


def test_validation_sentences_that_changed_are_told(made):
    study = made.study
    spec = study.user_attrs["spec"]
    prints = {**spec["fingerprints"], "valid": "9:0123"}
    study.set_user_attr("spec", {**spec, "fingerprints": prints})
    assert "validation split has changed: it was 9:0123, is 8:" in fault_of(made)


def on_quantized(made, folder):
    """The same study of a quantized base. On a CPU it is trained in float32, so that the scores are
    others: those of a checkpoint are measured when it is exported.
    """
    study = made.study
    study.set_user_attr("spec", {**study.user_attrs["spec"], "model": str(folder)})
    return {"trial_number": 0, "checkpoint": int(other_checkpoint(made).name)}


@pytest.mark.parametrize("option", ["dequantize", "ollama"])
def test_quantized_base_is_fused_into_full_weights(made, quantized_dir, option):
    asked = on_quantized(made, quantized_dir)
    exported = made.export(**asked, **{option: True})
    adapter, fused = exported.parts
    assert (adapter.dequantized, fused.dequantized) == (False, True)
    assert "quantization" not in json.loads((made.folder / "fused" / "config.json").read_text())
    assert fused.check.near == 1.0
    assert "fused, dequantized |" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_quantized_fused_model_is_not_replaced_by_a_dequantized_one(made, quantized_dir):
    asked = on_quantized(made, quantized_dir)
    exported = made.export(**asked, fuse=True)
    if exported.parts[1].dequantized:  # requantizing lost the adapter
        assert exported.lost is not None
        return
    for option in ("dequantize", "ollama"):
        assert "fused is there already, quantized" in fault_of(made, **asked, **{option: True})


def test_model_that_ollama_does_not_import_is_refused_before_anything_is_made(made, monkeypatch):
    monkeypatch.setattr("hawsweep.export.ollama.IMPORTED", ())
    said = fault_of(made, ollama=True)
    assert "for Ollama, which does not import its architecture. Use --fuse --dequantize" in said
    assert not made.folder.exists()


def command(made, *arguments):
    asked = ["export", "tiny", *arguments, "--studies-dir", str(made.studies)]
    return CliRunner().invoke(main, asked)


def test_command_says_what_was_written_and_what_comes_next(made):
    done = command(made, "--ollama")
    assert done.exit_code == 0, done.output
    number = done.output.split("Trial ")[1][0]
    assert f"Trial {number} of tiny, chrf " in done.output
    assert "\nfused/ " in done.output
    assert "100%" in done.output
    assert "--system-prompt 'Translate Hawaiian to English.'" in done.output
    assert f"ollama create tiny -f {made.folder}/Modelfile" in done.output
    assert "convert_hf_to_gguf.py" not in done.output
    again = json.loads(command(made, "--fuse", "--force", "--json").stdout)
    assert again["new"] == ["adapters", "fused"]
    assert [part["check"]["identical"] for part in again["parts"]] == [1.0, 1.0]
    assert again["next"][0].startswith(f"mlx_lm.generate --model {made.folder}/fused ")
    converter = "python llama.cpp/convert_hf_to_gguf.py"
    assert again["next"][1:4] == [
        f"mlx_lm.server --model {made.folder}/fused",
        "mkdir -p ~/.lmstudio/models/hawsweep/tiny && "
        f"rsync -a --delete {made.folder}/fused/ ~/.lmstudio/models/hawsweep/tiny/",
        f"{converter} {made.folder}/fused --outfile tiny.gguf",
    ]


def test_fused_model_has_the_vocabulary_and_the_template_of_its_base(tmp_path):
    base, target = tmp_path / "base", tmp_path / "fused"
    base.mkdir()
    target.mkdir()
    (target / "tokenizer_config.json").write_text("{}")
    (base / "tokenizer.model").write_bytes(b"sentencepiece")
    (base / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    copy_tokenizer(base, target)
    assert (target / "tokenizer.model").read_bytes() == b"sentencepiece"
    assert (target / "chat_template.jinja").read_text() == "{{ messages }}"
    (target / "chat_template.jinja").write_text("its own")
    copy_tokenizer(base, target)
    assert (target / "chat_template.jinja").read_text() == "its own"


def test_next_commands_name_the_trial_and_the_folder(made, tmp_path):
    words = ("export", "tiny", "--studies-dir", str(made.studies), "--output", str(tmp_path / "o"))
    done = CliRunner().invoke(main, [*words, "--trial", "0", "--json"])
    assert done.exit_code == 0, done.output
    upload = json.loads(done.stdout)["next"][-1]
    assert upload == shlex.join(
        ["hawsweep", "export", "tiny", "--trial", "0", "--upload-repo", "NAME/tiny"]
        + [f"--studies-dir={made.studies}", f"--output={tmp_path / 'o'}"]
    )


def test_converter_comes_next_only_for_full_weights(made, quantized_dir):
    exported = made.export(**on_quantized(made, quantized_dir), fuse=True)
    (folder,) = [made.folder / part.path for part in exported.parts if part.name == "fused"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization": {"bits": 4}}))
    commands = next_commands(exported, "Aloha.")
    assert not any("convert_hf_to_gguf" in each for each in commands)
    at = f"--checkpoint {exported.checkpoint}"
    assert f"hawsweep export tiny --trial 0 {at} --dequantize --force" in commands
    peft = replace(exported.parts[0], name="peft", path="peft")
    with_peft = replace(exported, parts=(*exported.parts, peft))
    again = f"hawsweep export tiny --trial 0 {at} --peft --dequantize --force"
    assert again in next_commands(with_peft, "Aloha.")
    said = " ".join(str(each) for each in export_picture(exported).renderables)
    assert "fused/ was quantized again, which rounds the adapter away in part" in said
    config.pop("quantization", None)
    (folder / "config.json").write_text(json.dumps(config))
    assert any("convert_hf_to_gguf" in each for each in next_commands(exported, "Aloha."))


def test_gguf_says_what_to_do_instead(made):
    done = command(made, "--gguf")
    assert done.exit_code == 2
    said = "Instead of --gguf, use --fuse --dequantize, then llama.cpp's convert_hf_to_gguf.py"
    assert said in done.output


def test_private_without_a_repository_is_a_wrong_usage(made):
    done = command(made, "--private")
    assert done.exit_code == 2
    assert "--private is for --upload-repo" in done.output


def test_folder_that_cannot_be_written_is_told(made, tmp_path):
    (tmp_path / "file").touch()
    said = fault_of(made, output=tmp_path / "file" / "export")
    assert "export cannot be written: File exists. Earlier files are unchanged." in said
