"""The relay's tests run against a real server, so that all of them see its rows."""

from __future__ import annotations

import pytest

from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import live_house, same_rows, web

__all__ = ["house", "live_house", "same_rows", "web"]


@pytest.fixture
def house(live_house: Estate) -> Estate:
    return live_house
