"""What all tests share: an empty Postgres store, and the rule that in CI a skipped test is a failure, unless its reason is expected here.

`--alone` and `--tell FILE` are for tools/run_tests.py.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Reasons, word for word, each with a comment that says why CI cannot run what it skips.
EXPECTED_SKIPS: frozenset[str] = frozenset(
    {
        "a small disk can be mounted by root only"  # a container without CAP_SYS_ADMIN, in the test of a full disk under Postgres
    }
)


sys.path.insert(0, str(Path(__file__).parent / "stores"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so starts a script what it puts in the background, and so would tests their programs
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty store on a real server."""
    import postgres_server

    url = postgres_server.empty_url()
    yield url
    postgres_server.done_with(url)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--alone", action="store_true", help="look into those files only where a test is marked `alone`: all take long to read")
    parser.addoption("--tell", type=Path, metavar="FILE", help="write what failed and the last line to this file, as JSON")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and config.getoption("alone") and "mark.alone" not in collection_path.read_text(encoding="utf-8") else None


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
    skips = list(unexpected_skips(config)) if in_ci() else []
    if skips:
        terminalreporter.section("skipped in CI, which is a failure")
        terminalreporter.write_line("\n".join(skips))
        terminalreporter.write_line("install what they need in .ci/run, or add the reason to EXPECTED_SKIPS in tests/conftest.py")
    if file := config.getoption("tell"):
        parts, _ = terminalreporter.build_summary_stats_line()
        failed = [f"{kind.upper()} {report.nodeid}" for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, ())]
        failed += [f"SKIPPED in CI {skip}" for skip in skips]
        file.write_text(json.dumps({"line": ", ".join(text for text, _ in parts), "failed": failed}), encoding="utf-8")
