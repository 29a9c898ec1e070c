"""A pytest plugin for CI: a test that was skipped or expected to fail fails the run. Loaded by `.ci/run` only."""

from __future__ import annotations

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats: dict[str, list[object]] = reporter.stats if reporter is not None else {}
    if stats.get("skipped") or stats.get("xfailed"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
