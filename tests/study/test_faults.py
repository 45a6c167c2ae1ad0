"""Each way a worker dies has its name and its consequence."""

import errno
import signal

import pytest
from gpu_faults import OF_METAL, RESOURCE_LIMIT, TEXTS

from hawsweep.errors import ScoringError
from hawsweep.running.memory_watch import MemoryWatch
from hawsweep.study.faults import (
    ENDED_BY_SIGTERM,
    TAINTING,
    Circumstances,
    is_disk_fault,
    of_exception,
    of_worker,
)

METAL_OUT_OF_MEMORY = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
METAL_WATCHDOG = (
    "[METAL] Command buffer execution failed: Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)"
)
NO_MEMORY = "[metal::malloc] Unable to allocate 9 bytes: Insufficient Memory"
SHORT, KERNEL = Circumstances(memory_was_short=True), Circumstances(kernel_killed=True)


@pytest.mark.parametrize(
    ("code", "words", "circumstances", "kind", "remedy"),
    [
        (-signal.SIGABRT, METAL_OUT_OF_MEMORY, Circumstances(), "out_of_memory", "smaller"),
        (-signal.SIGABRT, METAL_WATCHDOG, Circumstances(), "watchdog", "go on"),
        (1, RESOURCE_LIMIT, Circumstances(), "resource_limit", "later"),
        (-signal.SIGKILL, "", KERNEL, "out_of_memory", "smaller"),
        (-signal.SIGKILL, "", SHORT, "out_of_memory", "smaller"),
        (-signal.SIGKILL, "", Circumstances(), "killed", "later"),
        (-signal.SIGTERM, "", SHORT, "killed", "later"),
        (ENDED_BY_SIGTERM, "", Circumstances(), "killed", "later"),
        (-signal.SIGSEGV, "", SHORT, "out_of_memory", "smaller"),
        (-signal.SIGSEGV, "", Circumstances(), "crashed", "later"),
        (-signal.SIGBUS, "", Circumstances(), "crashed", "later"),
        (-signal.SIGABRT, "Assertion failed", Circumstances(), "crashed", "later"),
        (1, "MemoryError: std::bad_alloc", Circumstances(), "out_of_memory", "smaller"),
        (1, "OSError: [Errno 28] No space left on device", Circumstances(), "disk", "go on"),
        (1, "ValueError: wrong", Circumstances(), "bug", "none"),
        (-signal.SIGABRT, "", Circumstances(hung_s=90.0), "hung", "later"),
    ],
)  # fmt: skip
def test_death_is_named(tmp_path, code, words, circumstances, kind, remedy):
    log = tmp_path / "log.txt"
    log.write_text(f"something before\n{words}\n")
    fault = of_worker(code, log, circumstances)
    assert (fault.kind, fault.remedy) == (kind, remedy)
    assert "\n" not in fault.text
    if kind == "hung":
        assert "no sign of life for 90 s" in fault.text
    else:
        assert (words or "something before")[:150] in fault.text


def test_words_of_an_earlier_process_in_the_same_log_do_not_count(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("out of memory\n")
    fault = of_worker(1, log, Circumstances(), log.stat().st_size)
    assert fault.kind == "bug"
    assert fault.text == "the worker died with exit code 1"


def test_log_that_is_missing_or_not_text_is_no_hindrance(tmp_path):
    assert of_worker(-9, tmp_path / "none", Circumstances()).kind == "killed"
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 200)
    assert of_worker(-9, tmp_path / "binary", Circumstances()).kind == "killed"


def test_dump_of_a_crash_is_told_by_its_first_line(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        'x\nFatal Python error: Segmentation fault\n\nCurrent thread\n  File "a", line 3\n'
    )
    assert (
        "(last words: Fatal Python error: Segmentation fault)"
        in of_worker(-signal.SIGSEGV, log, Circumstances()).text
    )


REMEDIES = {
    "watchdog": "go on",
    "gpu": "later",
    "resource_limit": "later",
    "out_of_memory": "smaller",
}


@pytest.mark.parametrize(("text", "kind"), TEXTS.items())
def test_fault_of_a_gpu_has_its_consequence_told_or_as_last_words(tmp_path, text, kind):
    told = of_exception(RuntimeError(text))
    assert (told.kind, told.remedy) == (kind, REMEDIES[kind])
    assert told.kind in TAINTING  # the process is of no further use
    log = tmp_path / "log.txt"
    log.write_text(f"libc++abi: terminating due to uncaught exception: {text}\n")
    assert of_worker(-signal.SIGABRT, log, Circumstances()).kind == kind


def test_first_fault_of_a_gpu_is_the_cause_of_the_others(tmp_path):
    texts = [text for text in OF_METAL if "OutOfMemory" in text or "Ignored" in text]
    log = tmp_path / "log.txt"
    log.write_text("\n".join(sorted(texts, key=lambda text: "Ignored" in text)))
    assert of_worker(-signal.SIGABRT, log, Circumstances()).kind == "out_of_memory"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (RuntimeError(NO_MEMORY), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EROFS, "Read-only file system"), "disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (RuntimeError(RESOURCE_LIMIT), "resource_limit"),
        (RuntimeError(METAL_WATCHDOG), "watchdog"),
        (RuntimeError("Could not load C++ shared library /a.so: file too short"), "compiled_code"),
        (KeyError("x"), "bug"),
    ],
)  # fmt: skip
def test_exception_is_named(fault, kind):
    assert of_exception(fault).kind == kind


def test_short_memory_is_found_behind_what_it_caused():
    fault = ScoringError("scoring.metric mine:f fails")
    assert of_exception(fault).kind == "bug"
    fault.__cause__ = MemoryError()
    assert of_exception(fault).kind == "out_of_memory"


def test_full_disk_is_found_behind_what_it_caused():
    fault = RuntimeError("could not write")
    assert not is_disk_fault(fault)
    fault.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_fault(fault)
    assert not is_disk_fault(None)


def test_kernel_is_blamed_once_for_what_it_ended(tmp_path):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 3\n")
    watch = MemoryWatch(tmp_path)
    assert not watch.circumstances().kernel_killed
    vmstat.write_text("nr_free_pages 5\noom_kill 4\n")
    assert watch.circumstances().kernel_killed
    assert not watch.circumstances().kernel_killed


def test_without_the_kernels_count_nobody_is_blamed(tmp_path):
    watch = MemoryWatch(tmp_path)
    watch.look()
    assert not watch.circumstances().kernel_killed
