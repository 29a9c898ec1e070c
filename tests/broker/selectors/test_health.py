"""What /healthz rests on: an installation that still awaits its demo is not healthy, and one without a demo may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings

from broker.selectors import health

pytestmark = pytest.mark.django_db


def demo_parts() -> list[bool]:
    return [part.is_up for part in health.parts() if part.name == "demo pool"]


def test_a_demo_that_is_not_set_up_yet_is_down(settings: Settings, tmp_path: Path) -> None:
    settings.DEMO_EXPECTED, settings.DATA_DIR = True, tmp_path
    assert demo_parts() == [False]


def test_a_demo_that_its_administrators_have_deleted_is_no_part_of_health(settings: Settings, tmp_path: Path) -> None:
    settings.DEMO_EXPECTED, settings.DATA_DIR = True, tmp_path
    (tmp_path / "demo.done").touch()
    assert demo_parts() == []


def test_an_installation_without_a_demo_awaits_none(settings: Settings, tmp_path: Path) -> None:
    settings.DEMO_EXPECTED, settings.DATA_DIR = False, tmp_path
    assert demo_parts() == []
