"""Uploads to a hub on this machine: what arrives, what is refused, what is said."""

import os
import subprocess

import pytest
from click.testing import CliRunner
from command import COMMAND
from fakehub import TOKEN, FakeHub
from huggingface_hub import close_session, constants

from hawsweep.cli import main

# huggingface_hub's own, of httpx.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub():
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def export(made, hub, monkeypatch, tmp_path):
    """``hawsweep export tiny`` as somebody with a token, who reaches that hub alone."""
    for name, value in {
        "ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,  # its servers are others
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    close_session()

    def run(*arguments, token=TOKEN, code=0):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        asked = ["export", "tiny", *arguments, "--studies-dir", str(made.studies)]
        done = CliRunner().invoke(main, asked)
        assert done.exit_code == code, done.output
        assert TOKEN not in done.output
        return done.output

    yield run
    close_session()


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_arrives_is_what_was_exported(made, hub, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [*COMMAND, "export", "tiny", "--fuse", "--ollama"]
        + ["--upload-repo", "me/haw", "--studies-dir", str(made.studies)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert TOKEN not in said
    sent = hub.repos["me/haw"]
    wanted = files_of(made.folder / "fused")
    for name in ("Modelfile", "README.md"):
        wanted[name] = (made.folder / name).read_bytes()
    wanted["Modelfile"] = wanted["Modelfile"].replace(b"\nFROM ./fused\n", b"\nFROM .\n")
    assert sent == wanted
    assert {len(content) > hub.small for content in sent.values()} == {True, False}  # both ways
    assert "mlx_lm.generate --model me/haw --system-prompt" in sent["README.md"].decode()
    assert hub.private == {"me/haw": False}
    assert len(hub.commits) == 1
    assert hub.cards == [sent["README.md"].decode()]  # which the hub is asked about first
    assert f"{hub.url}/me/haw" in said
    assert "--upload-repo NAME" not in said  # not what comes next


def test_adapter_is_sent_where_nothing_was_fused(made, hub, export):
    made.export()
    export("--upload-repo", "me/haw", "--private")  # what is there already
    wanted = {**files_of(made.folder / "adapters"), "README.md": b""}
    assert hub.repos["me/haw"].keys() == wanted.keys()
    weights = "adapters.safetensors"
    assert hub.repos["me/haw"][weights] == wanted[weights]
    assert hub.private == {"me/haw": True}


def test_public_repository_does_not_get_what_is_to_be_private(made, hub, export):
    hub.repos["me/haw"], hub.private["me/haw"] = {}, False
    said = export("--upload-repo", "me/haw", "--private", code=1)
    assert "me/haw is public, and --private asks for a private one. Nothing was sent" in said
    assert hub.repos["me/haw"] == {}


@pytest.mark.parametrize(
    ("token", "repo", "reason"),
    [
        (None, "me/haw", "There is no token to upload to me/haw with. Log in with `hf auth login`"),
        ("hf_wrong", "me/haw", "does not answer or refuses the token"),
        (TOKEN, "me/haw/more", "'me/haw/more' cannot be a repository"),
    ],
)
def test_upload_that_cannot_begin_is_refused_before_anything_is_built(
    made, hub, export, token, repo, reason
):
    said = export("--upload-repo", repo, token=token, code=1)
    assert reason in said
    assert said.count("Error:") == 1
    assert "Traceback" not in said
    assert "hf_wrong" not in said
    assert not made.folder.exists()
    assert hub.repos == {}


def test_upload_that_fails_leaves_a_whole_export(made, hub, export):
    hub.fails = "/commit/main"
    said = export("--upload-repo", "me/haw", code=1)
    assert "Uploading to me/haw failed: " in said
    assert "The export on this machine is whole" in said
    assert "Traceback" not in said
    assert made.names() == ["README.md", "adapters", "export.json"]
    assert "me/haw" not in (made.folder / "README.md").read_text(encoding="utf-8")
    hub.fails = None
    export("--upload-repo", "me/haw")
    assert "adapters.safetensors" in hub.repos["me/haw"]


def test_weights_of_an_earlier_upload_are_not_left_beside_new_ones(made, hub, export):
    export("--upload-repo", "me/haw", "--peft")
    assert "peft/adapter_model.safetensors" in hub.repos["me/haw"]
    hub.repos["me/haw"] |= {
        "model-00001-of-00002.safetensors": b"",
        "model.safetensors.index.json": b"",
        "notes.txt": b"",
    }
    export("--upload-repo", "me/haw", "--fuse")
    there = {path for path in hub.repos["me/haw"] if path.endswith((".safetensors", ".txt"))}
    assert there == {"model.safetensors", "notes.txt", "peft/adapter_model.safetensors"}
    assert (
        "model.safetensors.index.json" not in hub.repos["me/haw"]
        or b"{" in (hub.repos["me/haw"]["model.safetensors.index.json"])
    )


def test_nothing_is_sent_unasked(made, hub, export):
    export()
    assert hub.requests == []
