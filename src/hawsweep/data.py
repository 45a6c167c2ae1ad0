"""A data reference becomes train, valid and test records, and records become tokens.

A reference is a bundled name, a folder with ``{train,valid,test}.jsonl`` in mlx-lm's formats, a CSV
of two columns, or a Hugging Face data set. Batches of tokens: batches.py.
"""

import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep import hub
from hawsweep.errors import DataError
from hawsweep.spec import DataSpec

BUNDLED = ("phrasebook",)
_FORMATS = 'one of {"messages": [...]}, {"prompt": ..., "completion": ...} and {"text": ...}'
_SPLIT_FILES = {"train": ("train",), "valid": ("valid", "validation", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Record:
    """One example in one of mlx-lm's formats.

    Attributes:
        content: The JSON object, with ``messages``, ``prompt`` and ``completion``, or ``text``.
        where: File and line, for messages about it.
    """

    content: dict[str, Any]
    where: str = ""

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The record as a chat, or None where it is plain text."""
        if "messages" in self.content:
            messages: list[dict[str, Any]] = self.content["messages"]
            return messages
        if "prompt" in self.content:
            return [
                {"role": "user", "content": self.content["prompt"]},
                {"role": "assistant", "content": self.content["completion"]},
            ]
        return None

    @property
    def reference(self) -> str | None:
        """The answer to compare a generated one with, or None where the record has no answer."""
        messages = self.messages
        if messages is None or messages[-1].get("role") != "assistant":
            return None
        return str(messages[-1]["content"])

    @property
    def source(self) -> str:
        """The last user's message."""
        users = [m for m in self.messages or () if m.get("role") == "user"]
        return str(users[-1]["content"]) if users else ""

    @property
    def group(self) -> str | None:
        """The kind of record, where the data says."""
        return self.content.get("group")


@dataclass(frozen=True)
class Splits:
    """A data set.

    Attributes:
        test: May be empty.
        folder: Where mlx-lm finds the same splits, or None when they are in no such folder.
    """

    train: list[Record]
    valid: list[Record]
    test: list[Record]
    folder: Path | None = None

    def fingerprint(self) -> dict[str, str]:
        """Number of records and content hash of each split."""
        return {name: _fingerprint(getattr(self, name)) for name in ("train", "valid", "test")}

    def write(self, folder: Path) -> None:
        """Write the splits as mlx-lm reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "valid", "test"):
            lines = [
                json.dumps(record.content, ensure_ascii=False) for record in getattr(self, name)
            ]
            (folder / f"{name}.jsonl").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )


@dataclass(frozen=True)
class Example:
    """A record's tokens.

    Attributes:
        tokens: Token ids, ``[tokens]``.
        offset: Tokens before it are not learned from. At least 1: the first token has nothing
            before it.
    """

    tokens: npt.NDArray[np.int32]
    offset: int

    @property
    def n_targets(self) -> int:
        """How many tokens count in the loss."""
        return len(self.tokens) - self.offset


@dataclass(frozen=True)
class Encoded:
    """A split as tokens.

    Attributes:
        examples: Those with at least one token to learn from.
        records: The record of each example.
        n_truncated: Examples cut at ``max_seq_length``.
        n_dropped: Records with nothing left to learn from after cutting.
    """

    examples: list[Example]
    records: list[Record] = field(repr=False)
    n_truncated: int
    n_dropped: int


def load_data(spec: DataSpec, progress: Callable[[str], None] = lambda _: None) -> Splits:
    """Find and read a data set.

    Raises:
        DataError: It is nowhere, or a record is broken; the message names the file and the line.
    """
    path = Path(spec.path).expanduser()
    if spec.path in BUNDLED:
        splits = _read_folder(Path(str(resources.files("hawsweep"))) / spec.path)
    elif path.is_dir():
        splits = _read_folder(path)
    elif path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        splits = _read_csv(path, spec)
    else:
        splits = _read_folder(_download(spec.path, progress))
    for name in ("train", "valid"):
        if not getattr(splits, name):
            remedy = "Put at least one record in it."
            if path.is_file():
                remedy = "Add rows, or change data.valid_fraction and data.test_fraction."
            raise DataError(f"{spec.path}: the split {name} is empty. {remedy}")
    return splits


def choose_subset(records: Sequence[Record], max_records: int, seed: int) -> list[Record]:
    """A seeded subset in the records' order; all where there are no more than ``max_records``."""
    if len(records) <= max_records:
        return list(records)
    chosen = sorted(random.Random(seed).sample(range(len(records)), max_records))
    return [records[i] for i in chosen]


def encode(
    records: Iterable[Record], tokenizer: Any, *, max_seq_length: int, mask_prompt: bool
) -> Encoded:
    """Turn records into tokens as mlx-lm does, by the model's chat template.

    Raises:
        DataError: Nothing is left to learn from, or the chat template refuses a record.
    """
    kept: list[tuple[Example, Record]] = []
    n_truncated = n_dropped = longest = 0
    for record in records:
        tokens, offset = _tokenize(record, tokenizer, mask_prompt)
        longest = max(longest, len(tokens))
        n_truncated += len(tokens) > max_seq_length
        example = Example(np.array(tokens[:max_seq_length], np.int32), max(offset, 1))
        if example.n_targets < 1:
            n_dropped += 1
        else:
            kept.append((example, record))
    if not kept:
        raise DataError(
            f"No record has anything to learn from within max_seq_length={max_seq_length} tokens: "
            f"the longest of {n_dropped} has {longest}. Raise train.max_seq_length or shorten "
            "the records."
        )
    examples, used = zip(*kept, strict=True)
    return Encoded(list(examples), list(used), n_truncated, n_dropped)


def encode_prompt(record: Record, tokenizer: Any) -> list[int]:
    """The tokens after which the model answers."""
    messages = record.messages
    assert messages is not None
    return list(
        tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    )


def _tokenize(record: Record, tokenizer: Any, mask_prompt: bool) -> tuple[list[int], int]:
    messages = record.messages
    if messages is None:
        if mask_prompt:
            raise DataError(
                f"{record.where} is plain text, which has no prompt to mask. Set "
                "train.mask_prompt: false."
            )
        tokens = list(tokenizer.encode(record.content["text"]))
        if tokens[-1:] != [tokenizer.eos_token_id]:
            tokens.append(tokenizer.eos_token_id)
        return tokens, 0
    tools = record.content.get("tools")
    try:
        tokens = list(tokenizer.apply_chat_template(messages, tools=tools, return_dict=False))
        if not mask_prompt:
            return tokens, 0
        prompt = tokenizer.apply_chat_template(
            messages[:-1],
            tools=tools,
            add_generation_prompt=messages[-1].get("role") == "assistant",
            return_dict=False,
        )
    except Exception as fault:  # a chat template is code of the model's and raises what it likes
        raise DataError(
            f"{record.where}: the model's chat template refuses the record: {fault}"
        ) from fault
    return tokens, len(prompt)


def _read_folder(folder: Path) -> Splits:
    found: dict[str, list[Record]] = {}
    for split, names in _SPLIT_FILES.items():
        paths = [folder / f"{name}.jsonl" for name in names if (folder / f"{name}.jsonl").is_file()]
        if not paths and split != "test":
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
            raise DataError(
                f"{folder} has no {split}.jsonl; it has {there}. Put train.jsonl and "
                "valid.jsonl there."
            )
        found[split] = list(_read_jsonl(paths[0])) if paths else []
    plain = all(not (folder / f"{s}.jsonl").exists() or found[s] for s in found)
    return Splits(**found, folder=folder if plain and (folder / "valid.jsonl").exists() else None)


def _read_jsonl(path: Path) -> Iterator[Record]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _check_record(line, f"{path}:{number}")
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} is not UTF-8 text: {fault}. Save it as UTF-8.") from fault
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}.") from fault


def _check_record(line: str, where: str) -> Record:
    try:
        content = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise DataError(f"{where} is not JSON: {fault}. Correct or remove the line.") from fault
    if not isinstance(content, dict):
        raise DataError(f"{where} holds a {type(content).__name__}, must be {_FORMATS}.")
    if "prompt" in content and "completion" in content:
        fields = [content["prompt"], content["completion"]]
    elif "messages" in content:
        fields = _message_texts(content["messages"], where)
    elif "text" in content:
        fields = [content["text"]]
    else:
        raise DataError(f"{where} has the keys {', '.join(content) or 'none'}, must be {_FORMATS}.")
    if not all(isinstance(text, str) for text in fields):
        raise DataError(f"{where} has a text that is not a string. Correct or remove the line.")
    return Record(content, where)


def _message_texts(messages: Any, where: str) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where} has messages that are not a list of at least one. Correct or remove the line."
        )
    for message in messages:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise DataError(
                f"{where} has a message without role and content. Correct or remove the line."
            )
    return [message["content"] for message in messages]


def _read_csv(path: Path, spec: DataSpec) -> Splits:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            columns = list(reader.fieldnames or [])
            source, target = _choose_columns(path, spec, columns)
            rows = [
                _pair_record(row, source, target, spec.prompt, f"{path}:{reader.line_num}")
                for row in reader
                if any(row.values())
            ]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8: {fault}.") from fault
    random.Random(spec.seed).shuffle(rows)
    n_valid, n_test = (
        round(len(rows) * share) for share in (spec.valid_fraction, spec.test_fraction)
    )
    return Splits(rows[n_valid + n_test :], rows[:n_valid], rows[n_valid : n_valid + n_test])


def _choose_columns(path: Path, spec: DataSpec, columns: list[str]) -> tuple[str, str]:
    if len(columns) < 2:
        raise DataError(
            f"{path} has {len(columns)} columns, needs two: the text and its translation."
        )
    source, target = spec.source or columns[0], spec.target or columns[1]
    for key, column in (("source", source), ("target", target)):
        if column not in columns:
            raise DataError(
                f"{path} has no column {column!r} (data.{key}). Its columns: {', '.join(columns)}."
            )
    return source, target


def _pair_record(
    row: dict[str, str | None], source: str, target: str, prompt: str, where: str
) -> Record:
    text, translation = row[source], row[target]
    if not text or not translation:
        raise DataError(
            f"{where} has an empty {source if not text else target}. Fill or remove the row."
        )
    return Record({"prompt": prompt.replace("{source}", text), "completion": translation}, where)


def _download(repo: str, progress: Callable[[str], None]) -> Path:
    try:
        folder = hub.fetch(repo, "dataset", ["*.jsonl"], progress)
    except hub.NotFoundOnHub as fault:
        raise DataError(
            f"The data {repo!r} was not found. Looked for: a bundled name ({', '.join(BUNDLED)}); "
            f"a folder or a CSV at {Path(repo).expanduser()}; "
            f"the Hugging Face cache {hub.cache_path()}; {fault}."
        ) from fault
    if (folder / "train.jsonl").exists():
        return folder
    return _export_with_datasets(repo)


def _export_with_datasets(repo: str) -> Path:
    # Parquet and loading rules: what the library `datasets` is for.
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as fault:
        raise DataError(
            f"The data set {repo!r} has no train.jsonl. To read other formats: pip install "
            "'hawsweep[datasets]'."
        ) from fault
    from hawsweep.backend import cache_dir

    try:
        loaded = datasets.load_dataset(repo)
    except Exception as fault:  # as many kinds as there are data sets
        raise DataError(f"The data set {repo!r} cannot be loaded: {fault}") from fault
    folder = cache_dir() / "data" / repo.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    for split in loaded:
        loaded[split].to_json(str(folder / f"{split}.jsonl"))
    return folder


def _fingerprint(records: Sequence[Record]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.content, sort_keys=True, ensure_ascii=False).encode())
    return f"{len(records)}:{digest.hexdigest()[:16]}"
