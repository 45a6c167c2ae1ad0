"""Writing a report's file, and the files that it may replace."""

from pathlib import Path

from hawsweep.errors import ExportError
from hawsweep.files import replace_text

REPORT_FILE = "report.html"
# The mark near the beginning of a report, by which it may be replaced.
PAGE_MARK, MARKDOWN_MARK = '<meta name="generator" content="hawsweep', "<!-- hawsweep report"
_MARKED_BYTES = 2_000


def write_report(output: Path, text: str, mark: str, *, force: bool = False) -> None:
    """Write a report; an earlier report in its place is replaced.

    Args:
        mark: The mark of earlier reports of this kind.
        force: Replace also a file that is not a report.

    Raises:
        ExportError: There is another file, or it cannot be written.
    """
    if output.is_dir():
        raise ExportError(f"{output} is a folder. Give a file's path with --output.")
    if not force and output.exists() and not _is_report(output, mark):
        raise ExportError(
            f"{output} is there already and is no report of hawsweep. Give another path with "
            "--output, or replace it with --force."
        )
    try:
        # A model's answer may contain halves of characters, which a file cannot.
        replace_text(output, text.encode("utf-8", "replace").decode())
    except OSError as fault:
        raise ExportError(
            f"{output} cannot be written: {fault.strerror}. Give another path with --output."
        ) from fault


def _is_report(path: Path, mark: str) -> bool:
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(_MARKED_BYTES)
    except OSError:
        return False
