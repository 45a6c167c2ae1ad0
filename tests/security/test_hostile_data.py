"""A sweep of which every text is hostile, through every command: what each prints is harmless."""

import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command import COMMAND
from hostile_texts import ATTACKS, FORGED, acts
from tiny_sweep import LETTERS_DIR, tiny_sweep

# Half of a character is refused in a sweep, in data and in a table.
TEXTS = [each for name, each in ATTACKS.items() if name != "half"]
HOSTILE = " ".join(TEXTS) + " =1+1"
# A folder's name has at most 255 bytes, no slash and no null byte.
HOSTILE_NAME = " ".join(ATTACKS[each] for each in ("clear", "c1", "line", "separator", "override"))
N_RECORDS = {"train": 16, "valid": 6, "test": 6}

COMMANDS = {
    "validate": ("validate", "./hostile.yaml"),
    "validate json": ("validate", "./hostile.yaml", "--json"),
    "preview": ("preview", "./hostile.yaml"),
    "preview json": ("preview", "./hostile.yaml", "--json"),
    "preview record": ("preview", "./hostile.yaml", "--record", "train.jsonl:3"),
    "plan": ("plan", "./hostile.yaml"),
    "plan json": ("plan", "./hostile.yaml", "--json"),
    "init": ("init", "made", "--data", "DATA", "--model", "MODEL"),
    "status": ("status", "hostile", "--why", "--groups", "--all"),
    "status plain": ("status", "hostile", "--plain"),
    "status json": ("status", "hostile", "--json"),
    "status csv": ("status", "hostile", "--csv"),
    "list": ("list",),
    "list json": ("list", "--json"),
    "list csv": ("list", "--csv"),
    "show": ("show", "hostile", "0", "--examples", "--tokens", "5"),
    "show json": ("show", "hostile", "0", "--examples", "--json"),
    "compare": ("compare", "hostile"),
    "compare trials": ("compare", "hostile", "--trial", "0", "--trial", "1"),
    "compare json": ("compare", "hostile", "--json"),
    "compare csv": ("compare", "hostile", "--csv"),
    "report": ("report", "hostile"),
    "report markdown": ("report", "hostile", "--markdown"),
    "export": ("export", "hostile", "--trial", "0"),
    "export again": ("export", "hostile", "--trial", "0", "--fuse"),
    "score": ("score", "systems.csv"),
    "score csv": ("score", "systems.csv", "--csv"),
    "score json": ("score", "systems.csv", "--json"),
    "start again": ("start", "./hostile.yaml", "--set", "trials=2"),
    "start changed": ("start", "./hostile.yaml", "--set", "train.seed=5"),
    "stop": ("stop", "hostile"),
    "doctor": ("doctor", "--quick"),
    "a name": ("status", HOSTILE_NAME),
    "a sweep": ("start", f"./{HOSTILE_NAME}.yaml"),
    "a key": ("validate", "./hostile.yaml", "--set", f"{HOSTILE_NAME}=1"),
    "a value": ("validate", "./hostile.yaml", "--set", f"train.batch_size={HOSTILE_NAME}"),
    "a model": ("validate", "./hostile.yaml", "--model", f"./{HOSTILE_NAME}"),
    "data": ("validate", "./hostile.yaml", "--data", f"./{HOSTILE_NAME}"),
    "a record": ("preview", "./hostile.yaml", "--record", f"{HOSTILE_NAME}:3"),
    "a trial": ("show", "hostile", HOSTILE_NAME),
    "a database": ("list", "--storage", f"sqlite:///{HOSTILE_NAME}/no.db"),
    "a folder": ("list", "--studies-dir", f"./{HOSTILE_NAME}"),
    "a host": ("list", "--storage", f"postgresql://{HOSTILE_NAME}"),
    "a command": (HOSTILE_NAME,),
    "an option": ("list", f"--{HOSTILE_NAME}"),
    "a topic": ("explain", HOSTILE_NAME),
    "an adapter": ("score", "--model", "MODEL", "--adapter-path", HOSTILE_NAME, "--data", "DATA"),
    "a table": ("score", f"{HOSTILE_NAME}.csv"),
    "a column": ("score", "systems.csv", "--source", HOSTILE_NAME),
    "a metric": ("score", "systems.csv", "--metric", HOSTILE_NAME),
    "an output": ("report", "hostile", "--output", f"{HOSTILE_NAME}/report.html"),
}


def run(folder: Path, *arguments: str, **changes) -> "subprocess.CompletedProcess[bytes]":
    words = {"MODEL": str(folder / HOSTILE_NAME), "DATA": str(folder / f"data {HOSTILE_NAME}")}
    return subprocess.run(
        [*COMMAND, *(words.get(each, each) for each in arguments)],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=120,
        **changes,
    )


def record(number: int) -> dict[str, object]:
    attack = TEXTS[number % len(TEXTS)]
    messages = [
        {"role": "user", "content": f"{number} {attack} {HOSTILE}"},
        {"role": "assistant", "content": f"{attack} {FORGED}\n{FORGED}"},
    ]
    return {"messages": messages, "group": f"{number % 2} {HOSTILE}", HOSTILE: HOSTILE}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_model_dir):
    """A folder with a finished sweep; what ``start`` printed is in ``out`` and ``err``."""
    folder = tmp_path_factory.mktemp("hostile")
    model, data = folder / HOSTILE_NAME, folder / f"data {HOSTILE_NAME}"
    shutil.copytree(tiny_model_dir, model)
    data.mkdir()
    for split, n_records in N_RECORDS.items():
        lines = (json.dumps(record(number)) for number in range(n_records))
        (data / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    sweep = tiny_sweep(model, data) | {"trials": 2, "description": HOSTILE}
    sweep["train"] |= {"max_seq_length": 512}
    sweep["search"]["iters"] = {"choices": [4]}
    sweep["scoring"]["embedder"] = LETTERS_DIR
    (folder / "hostile.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    rows = [("source", "reference", HOSTILE), *((HOSTILE, FORGED, HOSTILE),) * 3]
    cells = (",".join('"' + each.replace('"', '""') + '"' for each in row) for row in rows)
    (folder / "systems.csv").write_text("\n".join(cells), encoding="utf-8")
    done = run(folder, "start", "./hostile.yaml", "--plain")
    (folder / "out").write_bytes(done.stdout)
    (folder / "err").write_bytes(done.stderr)
    assert done.returncode == 0, done.stderr
    for samples in folder.glob("studies/hostile/**/*samples.jsonl"):
        told = [
            json.loads(line) | {"output": HOSTILE}
            for line in samples.read_text().split("\n")
            if line
        ]
        samples.write_text("".join(f"{json.dumps(each)}\n" for each in told))
    return folder


def lines_that_act(raw: bytes) -> list[str]:
    """The lines that a terminal obeys or that a stranger wrote."""
    lines = raw.decode("utf-8").split("\n")  # and it must be UTF-8
    return [line for line in lines if any(map(acts, line)) or line.startswith(FORGED)]


def test_a_sweep_of_hostile_texts_prints_none_that_acts(hostile):
    assert lines_that_act((hostile / "out").read_bytes()) == []
    assert lines_that_act((hostile / "err").read_bytes()) == []


def test_its_logs_hold_none_that_acts(hostile):
    logs = [path for path in hostile.glob("studies/hostile/**/*.log") if path.is_file()]
    assert logs
    for log in logs:
        assert lines_that_act(log.read_bytes()) == [], log


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_no_command_prints_a_hostile_text_that_acts(hostile, arguments):
    done = run(hostile, *arguments)
    assert done.returncode in (0, 1, 2)
    assert done.stdout + done.stderr
    assert lines_that_act(done.stdout) == []
    assert lines_that_act(done.stderr) == []
    assert b"Traceback" not in done.stderr


def test_written_pages_show_what_would_turn_their_texts(hostile):
    for arguments in (("report",), ("report", "--markdown", "--output", "r.md"), ("export",)):
        trial = ("--trial", "0") if arguments == ("export",) else ()
        run(hostile, arguments[0], "hostile", *arguments[1:], *trial)
    pages = [*hostile.glob("studies/hostile/**/*.html"), *hostile.glob("**/*.md")]
    assert {page.name for page in pages} >= {"report.html", "README.md", "r.md"}
    for page in pages:
        texts = re.sub(r"(?s)<script>.*?</script>", "", page.read_text(encoding="utf-8"))
        assert not any(map(acts, texts)), page  # scripts are hawsweep's own and the figures'


def test_a_terminal_gets_hawsweeps_own_sequences_only(hostile):
    """In a terminal there are colours: without them nothing is left that acts."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"}
    command = [*COMMAND, "show", "hostile", "0", "--examples"]
    with subprocess.Popen(
        command, cwd=hostile, stdout=child, stderr=child, stdin=child, env=environment
    ) as process:
        os.close(child)
        raw = b""
        while chunk := read_some(parent):
            raw += chunk
        process.wait(60)
    os.close(parent)
    assert process.returncode == 0
    text = raw.decode("utf-8").replace("\r\n", "\n")
    # Styles, and those of a turning sign: hide and show the cursor, begin and empty a line.
    own = [f"\x1b[{each}" for each in ("1m", "2m", "3m", "4m", "0m", "?25l", "?25h", "2K", "1A")]
    for sequence in (*own, "\r"):
        text = text.replace(sequence, "")
    assert lines_that_act(text.encode()) == []


def read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""
