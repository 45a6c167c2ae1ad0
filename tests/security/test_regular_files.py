"""Files that are none: FIFOs, devices, sockets, folders and broken links, wherever one is read."""

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.data.table import open_table
from hawsweep.errors import HawsweepError, ModelError
from hawsweep.files import check_regular, open_regular, read_regular
from hawsweep.models.check_files import check_adapter, check_files
from hawsweep.models.load import load_embedder, load_template, load_weights
from hawsweep.models.resolve import resolve_model
from hawsweep.planning.calibration import cost_model
from hawsweep.scoring.metrics import find_metric
from hawsweep.spec.read import find_sweep, read_sweep
from hawsweep.spec.sweep import DataSpec

SAYS = {
    "fifo": "it is a FIFO, not a regular file",
    "device": "it is a device, not a regular file",
    "socket": "it is a socket, not a regular file",
    "folder": "Is a directory",
    "link": "it is a link to a file that is not there",
    "link-to-fifo": "it is a FIFO, not a regular file",
}
ENDLESS = [kind for kind in SAYS if kind not in {"folder", "link"}]


def place(path, kind):
    """Put something that is no regular file where one is expected."""
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":  # endless, as a link: who makes devices is root
            path.symlink_to("/dev/zero")
        case "socket":
            bind(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("nowhere")
        case "link-to-fifo":
            path.with_name(".away").mkdir()
            os.mkfifo(path.with_name(".away") / "fifo")
            path.symlink_to(".away/fifo")
    return path


def bind(path):
    """A socket's name may have about 100 bytes, so it is bound in its folder."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def refused(read, seconds=10):
    """The message of a fault; a read that waits fails the test instead of holding it up."""
    faults = []

    def run():
        try:
            read()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits"
    assert faults, "it was read"
    assert isinstance(faults[0], HawsweepError), repr(faults[0])
    return str(faults[0])


@pytest.mark.parametrize("kind", SAYS)
def test_irregular_file_is_not_opened(tmp_path, kind):
    path = place(tmp_path / "x", kind)
    for read in (open_regular, check_regular, lambda path: read_regular(path, 10)):
        with pytest.raises(OSError, match=SAYS[kind]):
            read(path)


def test_regular_file_and_a_link_to_it_are_read_up_to_the_bound(tmp_path):
    (tmp_path / "x").write_bytes(b"ten bytes.")
    (tmp_path / "link").symlink_to("x")
    for path in (tmp_path / "x", tmp_path / "link"):
        assert read_regular(path, 10) == b"ten bytes."
        with open_regular(path) as file:
            assert file.read() == b"ten bytes."
        with pytest.raises(OSError, match=r"it has 10 bytes, and at most 9 are read"):
            read_regular(path, 9)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone has /proc")
def test_file_that_hides_its_size_is_read_up_to_the_bound():
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    with pytest.raises(OSError, match=r"at most 10 are read"):
        read_regular(path, 10)


@pytest.mark.parametrize("kind", SAYS)
def test_irregular_sweep_is_refused(tmp_path, kind):
    path = place(tmp_path / "try.yaml", kind)
    message = refused(lambda: read_sweep(find_sweep(str(path))))
    assert message.startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("command", ["validate", "plan", "start"])
def test_commands_refuse_an_irregular_sweep_in_a_sentence(tmp_path, command, kind):
    path = place(tmp_path / "try.yaml", kind)
    done = CliRunner().invoke(main, [command, str(path)])
    assert done.exit_code == 1
    assert f"{path} cannot be read: {SAYS[kind]}" in " ".join(done.output.split())


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "txt", "parquet"])
def test_irregular_data_file_is_refused(tmp_path, suffix, kind):
    path = place(tmp_path / f"pairs.{suffix}", kind)
    message = refused(lambda: load_data((DataSpec(path=str(path)),)))
    if kind == "folder":  # a folder may hold splits
        assert message.startswith(f"{path} has no train.jsonl; it has nothing.")
    else:
        assert f"{path} cannot be read" in message
        assert SAYS[kind] in message


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("split", ["train", "valid", "test", "validation"])
def test_irregular_split_is_told_truly(tmp_path, split, kind):
    for name in {"train", "valid"} - {split}:
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    if split == "validation":
        (tmp_path / "valid.jsonl").unlink()
    path = place(tmp_path / f"{split}.jsonl", kind)
    message = refused(lambda: load_data((DataSpec(path=str(tmp_path)),)))
    assert message.startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.mark.parametrize("kind", ["fifo", "link-to-fifo", "device"])
def test_irregular_data_of_an_unknown_name_is_not_looked_for_on_the_hub(tmp_path, kind):
    path = place(tmp_path / "data", kind)
    message = refused(lambda: load_data((DataSpec(path=str(path)),)))
    assert "the file of that name is none that is read" in message


def test_process_substitution_as_data_or_sweep_is_told_to_be_a_fifo():
    reads, writes = os.pipe()
    try:
        with pytest.raises(OSError, match="it is a FIFO, not a regular file"):
            open_regular(Path(f"/dev/fd/{reads}"))
    finally:
        os.close(reads)
        os.close(writes)


@pytest.mark.parametrize("kind", SAYS)
def test_irregular_table_of_predictions_is_refused(tmp_path, kind):
    path = place(tmp_path / "predictions.csv", kind)

    def read():
        with open_table(path):
            pass

    assert refused(read).startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A copy of a small model that works."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
NEW_FILES = ("chat_template.jinja", "added_tokens.json", "special_tokens_map.json", "merges.txt")


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("name", [*MODEL_FILES, *NEW_FILES])
def test_irregular_file_of_a_model_is_refused(folder, name, kind):
    path = place(folder / name, kind)
    message = refused(lambda: resolve_model(str(folder)))
    assert message.startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["generation_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("load", [check_files, load_template, load_weights])
def test_every_way_to_load_a_model_refuses_an_irregular_file(folder, name, kind, load):
    path = place(folder / name, kind)
    assert refused(lambda: load(folder)).startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.mark.parametrize("kind", ENDLESS)
def test_plan_refuses_an_irregular_config(folder, kind):
    path = place(folder / "config.json", kind)
    assert refused(lambda: cost_model(folder)).startswith(f"{path} cannot be read: {SAYS[kind]}")


@pytest.mark.parametrize("kind", ENDLESS)
def test_irregular_template_in_the_folder_of_templates_is_refused(folder, kind):
    (folder / "additional_chat_templates").mkdir()
    path = place(folder / "additional_chat_templates" / "tool_use.jinja", kind)
    assert str(path) in refused(lambda: load_template(folder))


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapters.safetensors"])
def test_irregular_file_of_an_adapter_is_refused(tmp_path, name, kind):
    (tmp_path / "adapter_config.json").write_text("{}")
    path = place(tmp_path / name, kind)
    assert str(path) in refused(lambda: check_adapter(tmp_path))


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "model.safetensors"])
def test_irregular_file_of_an_embedder_is_refused(tmp_path, name, kind):
    (tmp_path / "1_Pooling").mkdir()
    path = place(tmp_path / name, kind)
    assert str(path) in refused(lambda: load_embedder(tmp_path))


@pytest.mark.parametrize("kind", SAYS)
def test_irregular_module_of_a_metric_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(Path("own.py"), kind)
    assert f"own.py cannot be read: {SAYS[kind]}" in refused(lambda: find_metric("own:score"))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("tokenizer.json", 100_000_000),
        ("tokenizer_config.json", 100_000_000),
        ("tokenizer.model", 100_000_000),
        ("vocab.txt", 100_000_000),
        ("chat_template.jinja", 1_000_000),
        ("chat_template.json", 1_000_000),
        ("config.json", 10_000_000),
    ],
)
def test_file_of_a_model_beyond_its_bound_is_refused_unread(folder, name, most):
    with (folder / name).open("wb") as file:
        file.truncate(most + 1)
    with pytest.raises(ModelError) as fault:
        resolve_model(str(folder))
    message = f"{folder / name} cannot be read: it has {most + 1:,} bytes, and at most {most:,}"
    assert str(fault.value).startswith(message)


def test_cache_of_the_hub_is_links_and_a_broken_one_that_is_not_read_does_no_harm(folder):
    blobs = folder.with_name("blobs")
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../blobs/{path.name}")
    (folder / "README.md").symlink_to("../blobs/gone")
    assert resolve_model(str(folder)) == folder
