"""What real programs say when they end, and what is read from it."""

from __future__ import annotations

import pytest

from bridge.model import HealthCheck
from bridge.supervision.causes import KILLED_HINT, classify, of_silence

LAST_WORDS = [
    ("missing_module", "ModuleNotFoundError: No module named 'uvicorn'"),
    ("missing_module", "Error: Cannot find module 'express'\nRequire stack:\n- /app/server.js"),
    ("missing_module", "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'vite' imported from /app/main.mjs"),
    ("missing_module", 'Exception in thread "main" java.lang.NoClassDefFoundError: org/slf4j/Logger'),
    ("missing_library", "./server: error while loading shared libraries: libcuda.so.1: cannot open shared object file"),
    ("missing_library", "ImportError: DLL load failed while importing _ssl: The specified module could not be found."),
    ("missing_library", "dyld[123]: Library not loaded: @rpath/libssl.3.dylib"),
    ("missing_library", "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by ./server)"),
    ("port_in_use", "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000"),
    ("port_in_use", "OSError: [Errno 98] Address already in use"),
    ("port_in_use", "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)"),
    ("port_in_use", "Port 5173 is already in use"),
    ("permission", "PermissionError: [Errno 13] Permission denied: '/var/lib/app'"),
    ("permission", "Error: EACCES: permission denied, open '/root/.npmrc'"),
    ("permission", "Zugriff: Access is denied. (os error 5)"),
    ("out_of_memory", "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"),
    ("out_of_memory", "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("out_of_memory", "MemoryError"),
    ("out_of_memory", "terminate called after throwing an instance of 'std::bad_alloc'"),
    ("bad_configuration", "usage: server [-h] [--port PORT]\nserver: error: unrecognized arguments: --prot 80"),
    ("bad_configuration", "error: unknown option '--wathc'"),
    ("timeout", "psycopg.OperationalError: connection timed out"),
    ("timeout", "context deadline exceeded"),
    ("unknown", "Segmentation fault"),
    ("unknown", "Goodbye."),
    ("unknown", ""),
]


@pytest.mark.parametrize(("cause", "words"), LAST_WORDS)
def test_the_last_words_tell_the_cause(cause: str, words: str) -> None:
    found = classify(1, None, words.splitlines(), asked=False)
    assert found.cause_class == cause
    assert (found.hint is None) == (cause == "unknown")


def test_the_first_line_that_tells_may_stand_anywhere_in_the_tail() -> None:
    tail = ["starting", "OSError: [Errno 98] Address already in use", *["  at somewhere"] * 15]
    assert classify(1, None, tail, asked=False).cause_class == "port_in_use"


@pytest.mark.parametrize(
    ("code", "signal", "cause"),
    [
        (127, None, "missing_library"),
        (126, None, "permission"),
        (137, None, "out_of_memory"),
        (None, "SIGKILL", "out_of_memory"),
        (None, "SIGSEGV", "unknown"),
        (1, None, "unknown"),
        (0, None, "unknown"),
    ],
)
def test_without_words_the_exit_itself_is_read(code: int | None, signal: str | None, cause: str) -> None:
    assert classify(code, signal, [], asked=False).cause_class == cause


def test_a_kill_that_nobody_asked_for_hints_at_memory() -> None:
    assert classify(None, "SIGKILL", [], asked=False).hint == KILLED_HINT


def test_an_end_that_the_bridge_brought_about_says_nothing_about_the_program() -> None:
    assert classify(None, "SIGKILL", ["MemoryError"], asked=True) == ("unknown", None)


def check(status_code: int | None) -> HealthCheck:
    return HealthCheck(at="", ok=False, latency=None, status_code=status_code, error="it failed")


def test_a_process_that_answers_with_an_error_is_told_from_one_that_is_silent() -> None:
    assert of_silence(check(503)).cause_class == "unknown"
    assert "503" in str(of_silence(check(503)).hint)
    assert of_silence(check(None)).cause_class == "timeout"
    assert of_silence(None).cause_class == "timeout"


def test_hints_are_sentences_for_a_person() -> None:
    for _, words in LAST_WORDS:
        hint = classify(1, None, [words], asked=False).hint
        assert hint is None or (hint[0].isupper() and hint.endswith("."))
