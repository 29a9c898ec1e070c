"""The documentation says who has judged what, and no more."""

from __future__ import annotations

from connectors.registry import BUILT_IN
from tests.connectors import matrix


def test_the_matrix_in_the_documentation_is_what_the_tests_speak_for() -> None:
    _, written, _ = matrix.split()
    assert written == matrix.matrix(), "write it anew: python -m tests.connectors.matrix"


def test_every_connector_that_ships_is_in_the_matrix() -> None:
    _, written, _ = matrix.split()
    assert {kind for kind in BUILT_IN if f"| {kind} |" not in written} == set()
