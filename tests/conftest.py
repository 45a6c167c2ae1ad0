import hashlib
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

# Read by huggingface_hub when it is imported: no test may reach the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # tables are as wide as where there is no terminal
# Of several processes that test at once each has one thread: with more of them than cores, BLAS's
# waiting threads starve its working ones.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

from hawsweep.machine.backend import nn

import pytest
import tiny_llama
from mlx_lm.utils import load, save_config, save_model
from tiny_sweep import phrasebook_lines

from hawsweep.data.load import load_data
from hawsweep.data.tokens import encode
from hawsweep.models.load import load_model
from hawsweep.scoring import embedder_process
from hawsweep.spec.sweep import DataSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.place import Place

FAKE_EMBEDDER = (sys.executable, str(Path(__file__).with_name("fake_embedder.py")))
embedder_process._COMMAND = FAKE_EMBEDDER  # but where a test asks for the real one

# Where tests in other processes too write which faults they injected.
FAULTS_FILE = "HAWSWEEP_FAULTS_FILE"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONG = {"faults", "test_fuzz.py"}  # besides tests of a real model
N_RECORDS = {"train": 24, "valid": 8, "test": 8}


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # of several processes the first
        handle, os.environ[FAULTS_FILE] = tempfile.mkstemp(prefix="hawsweep-faults-")
        os.close(handle)


def pytest_collection_modifyitems(items):
    # A file that takes minutes would run alone if it were among the last. The installed wheel comes
    # later: it is given what other tests have measured and compiled.
    real = {item.path for item in items if item.get_closest_marker("real")}
    real = {path for path in real if path.name != "test_wheel.py"}
    long = {item.path for item in items if LONG.intersection(item.path.parts)}
    items.sort(key=lambda item: (item.path not in real, item.path not in long))


def pytest_terminal_summary(terminalreporter, config):
    if hasattr(config, "workerinput"):
        return
    passed = (Path(each.nodeid.split("::")[0]) for each in terminalreporter.stats.get("passed", ()))
    held = Counter(path.stem[5:] for path in passed if path.parent.name == "security")
    if held:
        each = ", ".join(f"{kind} {number}" for kind, number in sorted(held.items()))
        terminalreporter.write_line(f"attacks held: {held.total()} ({each})")
    path = Path(os.environ[FAULTS_FILE])
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    path.unlink(missing_ok=True)
    counts = Counter(line for line in lines if not line.startswith("pause "))
    pauses = sorted(float(line.split()[1]) for line in lines if line.startswith("pause "))
    if counts:
        each = ", ".join(f"{kind} {number}" for kind, number in sorted(counts.items()))
        terminalreporter.write_line(f"faults injected: {counts.total()} ({each})")
    if pauses:
        terminalreporter.write_line(
            f"from a worker's death to the next trial: median {statistics.median(pauses):.1f} s, "
            f"95 % within {pauses[int(0.95 * len(pauses))]:.1f} s, of {len(pauses)}"
        )


@pytest.fixture
def place(tmp_path):
    """Where studies are kept; nothing is there yet."""
    return Place(tmp_path / "studies")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_llama.tokenizer("<|im_start|>", "<|im_end|>", CHAT_TEMPLATE, vocab_size=400)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("tiny-llama")
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128}
    tiny_llama.save(folder, tokenizer, seed=7, num_key_value_heads=2, **sizes)
    return folder


@pytest.fixture(scope="session")
def quantized_dir(tiny_model_dir, tokenizer, tmp_path_factory):
    """The same model, quantized to 4 bits."""
    folder = tmp_path_factory.mktemp("tiny-llama-4bit")
    model, _, config = load(str(tiny_model_dir), return_config=True)
    nn.quantize(model, group_size=32, bits=4)
    save_model(folder, model)
    save_config({**config, "quantization": {"group_size": 32, "bits": 4}}, folder / "config.json")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_model_dir):
    """A fresh copy in memory: a test may train it."""
    return load_model(tiny_model_dir)


@pytest.fixture(scope="session")
def chat_data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat-data")
    for split, n_records in N_RECORDS.items():
        text = "".join(f"{line}\n" for line in phrasebook_lines(split, n_records))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def encode_split(tiny_model, chat_data_dir, split, *, mask_prompt):
    records = getattr(load_data([DataSpec(path=str(chat_data_dir))]), split)
    return encode(
        records, tiny_model.template, TrainSpec(max_seq_length=256, mask_prompt=mask_prompt)
    ).examples


@pytest.fixture
def train_examples(tiny_model, chat_data_dir):
    return encode_split(tiny_model, chat_data_dir, "train", mask_prompt=True)


@pytest.fixture
def valid_examples(tiny_model, chat_data_dir):
    return encode_split(tiny_model, chat_data_dir, "valid", mask_prompt=True)


@pytest.fixture
def unmasked_examples(tiny_model, chat_data_dir):
    return encode_split(tiny_model, chat_data_dir, "train", mask_prompt=False)


class HubCache:
    """Repositories laid out as huggingface_hub's cache keeps them."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, kind, repo, revision="main"):
        """Give the folder for the files of a revision of a ``model`` or ``dataset``."""
        commit = hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest()
        root = self.folder / f"{kind}s--{repo.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / revision).write_text(commit)
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        return snapshot


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return HubCache(folder)
