"""The exceptions of hawsweep.

Every error that a person can correct is a ``HawsweepError``: its message says what happened, which
value, and what to do. Any other exception is a bug and keeps its traceback.

    HawsweepError
    ├── SpecError        a sweep file or an override of it
    ├── BackendError     the device or its libraries
    ├── ModelError       a model or an embedder that cannot be found, read or trained
    │   └── UnknownArchitectureError  its memory does not follow from its config.json
    ├── DataError        a data set that cannot be found, read or used
    ├── StudyError       the storage, or a study that cannot be opened or continued
    │   ├── SpecChangedError  a study was made with another spec
    │   ├── StudyBusyError    another process runs the study
    │   ├── StorageOutageError  a shared database did not answer for long
    │   ├── StudyGoneError    what a running study needs was removed or replaced
    │   └── TravelError       a trial's files cannot be put into the store, or fetched from it
    ├── ScoringError     an answer cannot be judged
    ├── MemoryBudgetError  nothing of a sweep fits into memory
    ├── WorkerError      workers keep dying; the study stops
    └── ExportError      what was written does not do what the adapter does
"""

from collections.abc import Sequence

from hawsweep.text import visible


class HawsweepError(Exception):
    """A fault with one clear message. The command line prints it and exits with 1.

    Control characters in a quoted text are made visible, so that a terminal does not obey them, and
    its line breaks become spaces.

    Args:
        lines: Lines below the message. They are indented, as no quoted text can be.
    """

    def __init__(self, message: str = "", *, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)

    def __str__(self) -> str:
        texts = (super().__str__(), *self.lines)
        return "\n  ".join(visible(" ".join(each.split("\n"))) for each in texts)


class SpecError(HawsweepError):
    """A sweep file, or an override, has a wrong value."""


class BackendError(HawsweepError):
    """The device or its libraries cannot be used."""


class ModelError(HawsweepError):
    """A model or an embedder cannot be found, read or trained."""


class UnknownArchitectureError(ModelError):
    """The memory of a model's architecture does not follow from ``config.json``."""


class DataError(HawsweepError):
    """A data set cannot be found, read or used."""


class StudyError(HawsweepError):
    """The storage or a study in it cannot be opened, written or continued."""


class SpecChangedError(StudyError):
    """A study was made with another spec than the one that is to go on."""


class StudyBusyError(StudyError):
    """Another process on this machine runs the study."""


class StorageOutageError(StudyError):
    """A shared database, or the proxy of one, did not answer for minutes."""


class StudyGoneError(StudyError):
    """The database, a folder or a row of a running study was removed, moved or replaced."""


class TravelError(StudyError):
    """The files of a trial cannot be put into the store of artifacts, or fetched from it."""


class WorkerError(HawsweepError):
    """Workers keep dying; the sweep ends."""


class ExportError(HawsweepError):
    """An export does not reproduce its trial, or would write over something."""


class ScoringError(HawsweepError):
    """An answer cannot be judged, or there is nothing to judge."""


class MemoryBudgetError(HawsweepError):
    """The sweep does not fit into memory: ``short_bytes`` more would be enough."""

    def __init__(
        self, message: str, short_bytes: float = 0.0, *, lines: Sequence[str] = ()
    ) -> None:
        super().__init__(message, lines=lines)
        self.short_bytes = short_bytes


def told_error(name: str, text: str) -> HawsweepError:
    """An exception that another process tells by the name of its class and its text."""
    message, *lines = text.split("\n  ")
    kind: type[HawsweepError] = globals()[name]
    return kind(message, lines=lines)


# In small letters.
OUT_OF_MEMORY = (
    "insufficient memory",
    "outofmemory",
    "out of memory",
    "unable to allocate",
    "cannot allocate memory",
    "bad_alloc",
)


def is_out_of_memory(message: str) -> bool:
    """Whether the text of an exception or of a dying process says that memory was short."""
    return any(each in message.lower() for each in OUT_OF_MEMORY)
