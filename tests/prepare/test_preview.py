import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.models.load import load_template
from hawsweep.views.json_schema import OUTPUTS

PAIRS = [("Aloha", "Hello"), ("Mahalo nui loa", "Thank you very much"), ("ʻAe", "Yes")]
N_EACH = {"train": 3, "valid": 2, "test": 1}


@pytest.fixture
def data(tmp_path):
    for split, n_records in N_EACH.items():
        lines = (
            json.dumps({"prompt": source, "completion": target}) + "\n"
            for source, target in PAIRS[:n_records]
        )
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    return tmp_path


def show(*arguments, code=0):
    done = CliRunner().invoke(main, ["preview", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def show_json(*arguments):
    found = json.loads(show(*arguments, "--json"))
    OUTPUTS["preview"].validate_python(found)
    return found


def test_preview_tells_what_is_asked_and_what_is_learned(data, tiny_model_dir):
    found = show_json("--data", data, "--model", tiny_model_dir)
    assert (found["n_records"], found["n_used"]) == (6, 6)
    assert found["columns"] is None
    assert {name: count["n_records"] for name, count in found["splits"].items()} == N_EACH
    assert [each["split"] for each in found["records"]] == ["train"] * 2 + ["valid"] * 2 + ["test"]
    template = load_template(tiny_model_dir)
    assert found["end_of_turn"] == [template.end]
    first = found["records"][0]
    assert first["where"] == f"{data}/train.jsonl:1"
    messages = [{"role": "user", "content": "Aloha"}, {"role": "assistant", "content": "Hello"}]
    expected = template.encode(messages)
    assert first["tokens"] == expected.tokens
    assert first["learned"] == [[expected.start, len(expected.tokens)]]
    assert first["learned_text"] == "Hello"
    assert first["prompt_tokens"] == expected.tokens[: expected.start]
    assert first["prompt_text"] == "<|im_start|>user\nAloha<|im_end|>\n<|im_start|>assistant\n"
    assert first["prompt_is_prefix"]
    assert first["ends_turn"]
    assert (first["n_cut"], first["dropped"]) == (0, None)


def test_preview_shows_variants_of_training_records(data, tiny_model_dir):
    asked = ("--set", "train.augment=diacritics")
    found = show_json("--data", data, "--model", tiny_model_dir, *asked)
    counts = {name: count["n_records"] for name, count in found["splits"].items()}
    assert counts == {"train": 3, "train, diacritics": 1, "valid": 2, "test": 1}
    assert found["n_records"] == 6
    [view] = [each for each in found["records"] if each["split"] == "train, diacritics"]
    assert view["where"] == f"{data}/train.jsonl (diacritics):3"
    assert "\nAe<|im_end|>" in view["prompt_text"]


def test_preview_of_a_split_shows_it_alone(data, tiny_model_dir):
    given = ("--data", data, "--model", tiny_model_dir, "--split", "valid", "-n", "1")
    found = show_json(*given)
    assert list(found["splits"]) == ["valid"]
    assert [each["where"] for each in found["records"]] == [f"{data}/valid.jsonl:1"]


def test_preview_of_one_record_finds_it_by_file_and_line(data, tiny_model_dir):
    given = ("--data", data, "--model", tiny_model_dir)
    found = show_json(*given, "--record", "train.jsonl:3")
    assert [each["learned_text"] for each in found["records"]] == ["Yes"]
    assert "has no record 'train.jsonl:4' in train, valid, test. Name file" in show(
        *given, "--record", "train.jsonl:4", code=1
    )


def test_preview_says_what_is_cut_and_why_a_record_is_dropped(data, tiny_model_dir):
    given = ("--data", data, "--model", tiny_model_dir, "--split", "train", "-n", "3")
    whole = show_json(*given)["records"]
    n_prompt = len(whole[1]["prompt_tokens"])
    width = max(n_prompt, len(whole[0]["tokens"]) - 1)
    assert n_prompt <= width < len(whole[1]["tokens"])
    found = show_json(*given, "--set", f"train.max_seq_length={n_prompt}")
    longer = found["records"][1]
    assert longer["tokens"] == whole[1]["tokens"][:n_prompt]
    assert longer["n_cut"] == len(whole[1]["tokens"]) - n_prompt
    assert longer["prompt_is_prefix"]
    assert longer["learned"] == []
    assert longer["dropped"] == f"its prompt has {n_prompt} tokens and max_seq_length is {n_prompt}"
    assert found["n_used"] == sum(each["dropped"] is None for each in found["records"])
    text = show(*given, "--set", f"train.max_seq_length={n_prompt}")
    assert f"dropped   {longer['dropped']}" in text


def test_preview_of_plain_text_learns_it_whole(tmp_path, tiny_model_dir):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.jsonl").write_text('{"text": "He wahi"}\n')
    found = show_json("--data", tmp_path, "--model", tiny_model_dir)["records"][0]
    assert found["learned"] == [[1, len(found["tokens"])]]
    assert (found["prompt_tokens"], found["prompt_is_prefix"]) == (None, None)


def test_preview_of_a_sweep_shows_text_and_end(data, tiny_model_dir, tmp_path):
    sweep = {
        "model": str(tiny_model_dir),
        "data": str(data),
        "train": {"mask_prompt": True},
        "search": {"learning_rate": {"choices": [1e-3]}},
    }
    (tmp_path / "s.yaml").write_text(json.dumps(sweep))
    text = show(tmp_path / "s.yaml")
    assert "learned   Hello<|im_end|>" in text
    assert "prompt    <|im_start|>user" in text
    assert "<|im_end|> ends an answer" in text
    assert "train   3 records, 3 used" in text


def test_preview_of_control_characters_shows_them_and_obeys_none(data, tiny_model_dir):
    bell = {"prompt": "\x1b]0;title\x07\x1b[2J", "completion": "a\u202eb"}
    (data / "train.jsonl").write_text(json.dumps(bell) + "\n")
    text = show("--data", data, "--model", tiny_model_dir, "--split", "train")
    assert "\x1b" not in text
    assert r"\x1b]0;title\x07\x1b[2J" in text
    assert r"a\u202eb" in text


@pytest.mark.parametrize("form", ["train.jsonl:3", "./train.jsonl:3", "{data}/train.jsonl:3"])
def test_preview_finds_a_record_by_any_form_of_its_path(data, tiny_model_dir, monkeypatch, form):
    monkeypatch.chdir(data)
    given = ("--data", ".", "--model", tiny_model_dir, "--record", form.format(data=data))
    assert [each["learned_text"] for each in show_json(*given)["records"]] == ["Yes"]


def test_preview_without_a_sweep_asks_for_data_and_model(data):
    assert "Give the NAME of a sweep, or --data and --model." in show("--data", data, code=2)


def test_preview_downloads_no_model(data):
    message = show("--data", data, "--model", "someone/else", code=1)
    assert "someone/else is not here, and a preview downloads nothing." in message


def test_preview_imports_neither_mlx_nor_torch(data, tiny_model_dir):
    code = (
        "import sys; from hawsweep.machine.without_torch import keep_torch_out; keep_torch_out()\n"
        "from hawsweep.cli import main\n"
        f"main(['preview', '--data', {str(data)!r}, '--model', {str(tiny_model_dir)!r}], "
        "standalone_mode=False)\n"
        "heavy = ('mlx', 'mlx_lm', 'torch', 'optuna', 'sentence_transformers', 'plotly')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
