"""An adapter written for PEFT: its files, and what is refused. tests/ecosystem loads it by PEFT."""

import json

from hawsweep.machine.backend import mx

import numpy as np
import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.errors import ExportError
from hawsweep.export.card_metadata import transformers_base
from hawsweep.export.peft import PEFT_WEIGHTS, to_peft
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE

LAYER = "model.layers.1.self_attn.q_proj"
LORA = {"rank": 4, "scale": 2.5, "dropout": 0.1}


def adapter(folder, names, kind="lora", lora=LORA):
    """An adapter in mlx-lm's layout, of arrays by name and shape."""
    config = {"fine_tune_type": kind, "num_layers": 1, "lora_parameters": lora}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    arrays = {name: mx.random.normal(shape) for name, shape in names.items()}
    mx.save_safetensors(str(folder / WEIGHTS_FILE), arrays)
    return arrays


def test_arrays_are_turned_and_alpha_is_scale_times_rank(tmp_path):
    names = {f"{LAYER}.lora_a": (6, 4), f"{LAYER}.lora_b": (4, 8), f"{LAYER}.m": (8,)}
    before = adapter(tmp_path, names, "dora")
    config, arrays = to_peft(tmp_path, "llama", "some/base")
    there = f"base_model.model.{LAYER}"
    assert {name: array.shape for name, array in arrays.items()} == {
        f"{there}.lora_A.weight": (4, 6),
        f"{there}.lora_B.weight": (8, 4),
        f"{there}.lora_magnitude_vector": (8,),
    }
    turned = np.array(before[f"{LAYER}.lora_a"]).T
    np.testing.assert_array_equal(np.array(arrays[f"{there}.lora_A.weight"]), turned)
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 10.0, 0.1)
    assert config["target_modules"] == [LAYER]
    assert (config["use_dora"], config["use_rslora"]) == (True, False)
    assert config["base_model_name_or_path"] == "some/base"


def test_layers_beside_a_vision_tower_have_the_names_of_transformers(tmp_path):
    adapter(tmp_path, {f"language_model.{LAYER}.lora_a": (6, 4)})
    config, _ = to_peft(tmp_path, "gemma3", "b")
    assert config["target_modules"] == ["model.language_model.layers.1.self_attn.q_proj"]


NO_LAYER = "The adapter cannot be written for PEFT, which holds adapted linear layers: {} has shape"


@pytest.mark.parametrize(
    ("names", "more", "model_type", "said"),
    [
        ({"model.layers.1.mlp.lora_a": (2, 6, 4)}, {}, "llama", f"{NO_LAYER} [2, 6, 4]. Leave it"),
        ({"model.embed_tokens.lora_a": (9, 4)}, {}, "llama", f"{NO_LAYER} [9, 4]. Leave it"),
        ({"lm_head.lora_a": (9, 4)}, {}, "llama", f"{NO_LAYER} [9, 4]. Leave it"),
        ({f"{LAYER}.weight": (8, 6)}, {}, "llama", f"{NO_LAYER} [8, 6]. Leave it"),
        (
            {f"{LAYER}.weight": (8, 6)},
            {"kind": "full"},
            "llama",
            "There is no adapter to write for PEFT: all weights were trained. Export with --fuse.",
        ),
        (
            {f"{LAYER}.lora_a": (6, 4)},
            {"lora": {"rank": 4}},
            "llama",
            "There is no adapter to write for PEFT: its adapter_config.json has no scale. Export",
        ),
        (
            {f"{LAYER}.lora_a": (6, 4)},
            {},
            "mamba",
            "how transformers names the layers of 'mamba' is not known here, only of cohere,",
        ),
    ],
)
def test_what_peft_cannot_hold_is_refused(tmp_path, names, more, model_type, said):
    adapter(tmp_path, names, **more)
    with pytest.raises(ExportError) as caught:
        to_peft(tmp_path, model_type, "some/base")
    assert said.format(*names) in str(caught.value)


def test_export_has_the_adapter_for_peft_with_a_card(made):
    first = made.export()
    added = made.export(peft=True)
    assert (first.new, added.new) == (("adapters",), ("peft",))
    folder = made.folder / "peft"
    assert sorted(each.name for each in folder.iterdir()) == [
        "README.md",
        CONFIG_FILE,
        PEFT_WEIGHTS,
    ]
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert config["base_model_name_or_path"] == ""  # no folder of this machine
    ours = mx.load(str(made.folder / "adapters" / WEIGHTS_FILE))
    theirs = mx.load(str(folder / PEFT_WEIGHTS))
    assert len(theirs) == len(ours)
    for name, array in ours.items():
        renamed = name.replace("lora_a", "lora_A.weight").replace("lora_b", "lora_B.weight")
        assert mx.array_equal(array.T, theirs[f"base_model.model.{renamed}"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "PeftModel.from_pretrained" in card
    assert "from_pretrained('the base that is not quantized')" in card
    assert "\n| peft, the same weights |" in card
    assert card == (made.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "base"), [({}, "some/base"), ({"quantization": {"bits": 4}}, None), (None, None)]
)
def test_base_is_named_where_transformers_can_load_it(tmp_path, monkeypatch, config, base):
    path = tmp_path / "files"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config or {}))
    monkeypatch.setattr("hawsweep.models.resolve.find_model", lambda _: path)
    asked = "some/base@v1.0" if config is not None else str(path)
    assert transformers_base(asked) == base
    bundled = transformers_base("smollm2-135m-instruct")
    assert bundled == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_command_says_what_the_folder_for_peft_is(made):
    asked = ["export", "tiny", "--peft", "--studies-dir", str(made.studies)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert "the adapter for PEFT" in done.output
    assert "peft/ has the weights of adapters/, and its numbers." in done.output


def test_refused_export_for_peft_leaves_nothing(made):
    number = made.export().trial_number
    path = made.trial_dir(number) / "adapters" / CONFIG_FILE
    config = json.loads(path.read_text())
    del config["lora_parameters"]["scale"]
    path.write_text(json.dumps(config))
    with pytest.raises(ExportError, match="has no scale"):
        made.export(peft=True)
    assert made.names() == ["README.md", "adapters", "export.json"]
