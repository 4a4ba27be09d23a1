"""In CI a skipped test is a failure, unless its reason is expected here."""

import os
from collections.abc import Iterator

import pytest

# Reasons, word for word, each with a comment that says why CI cannot run what it skips.
EXPECTED_SKIPS: frozenset[str] = frozenset()


def unexpected_skips(config: pytest.Config) -> Iterator[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", ()) if reporter else ():
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in EXPECTED_SKIPS:
            yield f"{report.nodeid}: {reason}"


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if in_ci() and session.exitstatus == pytest.ExitCode.OK and any(unexpected_skips(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if in_ci() and (skips := list(unexpected_skips(config))):
        terminalreporter.section("skipped in CI, which is a failure")
        terminalreporter.write_line("\n".join(skips))
        terminalreporter.write_line("install what they need in .ci/run, or add the reason to EXPECTED_SKIPS in tests/conftest.py")
