"""What `manage.py run` refuses before it starts anything, and what it says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from broker.management.commands import run
from broker.management.demo import SignIn


def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CommandError, match="Set DESKYARD_HOST or DESKYARD_PORT"):
            run.require_free_port("127.0.0.1", other.getsockname()[1])


def test_a_free_port_passes() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    run.require_free_port("127.0.0.1", port)


def test_a_second_run_is_told_which_process_runs(tmp_path: Path) -> None:
    with (
        run.only_one(tmp_path / "lock"),
        pytest.raises(CommandError, match=str(os.getpid())),
        run.only_one(tmp_path / "lock"),
    ):
        pass
    with run.only_one(tmp_path / "lock"):
        pass


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    run.make_private(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "theirs")
    with pytest.raises(CommandError, match="another account"):
        run.make_private(tmp_path / "run")


def test_the_welcome_shows_no_password_that_somebody_has_changed() -> None:
    text = run.welcome([SignIn("admin", ""), SignIn("demo", "s3cret")])
    assert "admin / (the password you chose)" in text
    assert "demo / s3cret" in text
