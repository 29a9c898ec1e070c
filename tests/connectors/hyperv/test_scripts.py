"""Our PowerShell, as far as it can be looked at without PowerShell; and the looking itself, with planted mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from connectors.base import MachineRef
from connectors.hyperv import disks, faults, handing, hardware, landing
from connectors.hyperv.asking import Questions
from connectors.hyperv.client import COMMAND, SCRIPTS, script
from connectors.hyperv.connector import COPY_COMMAND
from connectors.hyperv.dock import Dock
from connectors.hyperv.hardware import Build
from connectors.hyperv.nodes import TASK_COMMAND
from connectors.hyperv.settings import HypervSettings
from tests.connectors.hyperv.powershell import documented, examine, nodes, parse, text_of

TABLES = documented(Path(__file__).with_name("cmdlets.json"))
NAMES = sorted(file.stem for file in SCRIPTS.glob("*.ps1"))
HEAD = "# deskyard-script: planted 1\n"
LAB = Path(__file__).parents[3] / "lab" / "hyperv" / "host.py"


@pytest.mark.parametrize("release", TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_no_mistake_that_can_be_seen(name: str, release: str) -> None:
    findings = [
        it
        for it in examine(script(name), TABLES[release])
        if name not in ("bootstrap", "task") or "not named" not in it.text
    ]
    assert not findings


def test_there_are_the_eleven_scripts() -> None:
    assert NAMES == [
        "bootstrap",
        "copy",
        "failover",
        "inventory",
        "landing",
        "mirrors",
        "orders",
        "points",
        "pull",
        "serve",
        "task",
    ]


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ("if ($a) { Get-VM -Id $b", "cannot be parsed"),
        ("$a = 'open", "cannot be parsed"),
        ("$x = @{ a = 1; b = }", "cannot be parsed"),
        ("$a ? 1 : 2", "PowerShell 7"),
        ("$a ?? $b", "PowerShell 7"),
        ("Get-VM -Id $a && Get-VMHost", "PowerShell 7"),
        ('Get-VMSnapshot -VM $vm -Name "of $name"', "inside a string"),
        ('$a = "made $(Get-VMHost)"', "inside a string"),
        ("Invoke-Expression $a", "text must not become code"),
        ("& $a", "not named"),
        ("gvm -Id $a", "no documented cmdlet"),
        ("% { $_ }", "no documented cmdlet"),
        ("Get-VirtualMachine -Id $a", "no documented cmdlet"),
        ("get-vm -Id $a", "is written Get-VM"),
        ("ConvertTo-Json -InputObject $a -AsArray", "no such parameter"),
        ("New-VHD -Path $a -Parent $b -Differencing", "write -ParentPath"),
        ("New-VM -Name $a -NewVHDPath $b -NewVHDSizeBytes 1 -NoVHD", "no parameter set"),
        ("Set-VMProcessor -Count 2", "is missing"),
        ("Set-VMMemory -VM $vm -DynamicMemoryEnabled", "has no value"),
        ("New-VHD -Path $a -ParentPath $b -Differencing yes", "is a switch"),
        ("Suspend-VM $vm", "has no parameter's name"),
        ("Get-Item -Path $a", "no such parameter"),
        ("Remove-VM -VM $vm", "asks for confirmation"),
        ("Get-VM -Name $a", "use -Id"),
        ("Get-VMHardDiskDrive -VMName $a", "never by name"),
        ("$a = @($b + 'x', 'y')", "comma binds tighter"),
        ("$a = @('x', 'y' + $b)", "comma binds tighter"),
        ("$a = 'gr\u00fcn'", "not ASCII"),
    ],
)  # fmt: skip
def test_a_planted_mistake_is_found(planted: str, words: str) -> None:
    found = examine(HEAD + planted + "\n", TABLES["2019"])
    assert any(words in it.text for it in found), found


def test_a_script_without_its_name_is_found() -> None:
    assert any("does not name" in it.text for it in examine("Get-VMHost\n", TABLES["2019"]))


def test_command_lines_stay_within_what_cmd_takes() -> None:
    assert len("powershell.exe " + " ".join(COMMAND)) < 8191
    assert len(COPY_COMMAND) < 8000
    assert len(TASK_COMMAND) < 8000


def test_every_word_that_a_script_throws_has_an_error_of_ours() -> None:
    thrown = {word for name in NAMES for word in re.findall(r"throw '(Deskyard\.\w+)'", script(name))}
    # CopyFailed is replaced by what the copy itself failed of.
    assert thrown - {"Deskyard.CopyFailed"} <= set(faults.OUR_OWN)
    # That a template is nowhere is known only once every host has been asked.
    assert set(faults.OUR_OWN) - thrown == {"Deskyard.NoTemplate"}


@pytest.mark.parametrize(
    ("played", "names"),
    [
        ("host", ["orders"]),
        ("points", ["points"]),
        ("landings", ["landing"]),
        ("errands", ["serve", "pull", "points"]),
        ("mirrors", ["mirrors"]),
        ("replicas", ["failover"]),
    ],
)
def test_the_lab_throws_only_what_the_scripts_throw(played: str, names: list[str]) -> None:
    """It shares no code with them, so what it says is compared here."""
    thrown = {word for name in names for word in re.findall(r"'(Deskyard\.\w+)'", script(name))}
    told = set(re.findall(r'"(Deskyard\.\w+)"', LAB.with_name(f"{played}.py").read_text(encoding="utf-8")))
    assert told
    assert told <= thrown


def _written_keys(name: str) -> set[str]:
    """Keys of all hash literals in a script."""
    found = [text_of(it) for it in nodes(parse(script(name)).root_node) if it.type == "key_expression"]
    return {text.strip("'") for text in found}


@pytest.mark.parametrize("name", ["inventory", "orders"])
def test_the_lab_answers_with_names_that_the_script_writes(name: str) -> None:
    text = LAB.read_text(encoding="utf-8")
    begin, end = ("# --- inventory 1", "# --- orders 1") if name == "inventory" else ("# --- orders 1", "# --- notes")
    part = text[text.index(begin) : text.index(end)]
    written = set(re.findall(r'"(\w+)": ', part)) - {"clone", "recycle", "delete", "power"}
    inner = {"restart", "snapshot", "revert", "forget", "resize", "share", "screen", "find", "describe"}
    marks = {"paths", "home", "vlans", "instance", "stage", "restarted", "reverted"}
    missing = written - _written_keys(name) - inner - marks
    assert not missing


@pytest.mark.parametrize(
    ("played", "name"),
    [("points", "points"), ("landings", "landing"), ("mirrors", "mirrors"), ("replicas", "failover")],
)
def test_the_lab_tells_of_points_landings_and_mirrors_with_names_that_the_script_writes(played: str, name: str) -> None:
    text = LAB.with_name(f"{played}.py").read_text(encoding="utf-8")
    part = text[text.index("def act(") :]
    marks = {"paths", "home", "vlans", "slots", "generation", "secure", "host", "release"}
    ops = {"look", "begin", "pull", "errand", "finish", "clear", "take", "serve", "msg", "installation", "key"}
    ops |= {"hand_over", "take_over", "reverse", "take_back"}
    assert set(re.findall(r'"(\w+)": ', part)) - marks - ops <= _written_keys(name)


def _asked_of(name: str) -> set[str]:
    """What a script reads of its parameters: PowerShell finds nothing wrong with a name that nobody has told."""
    return set(re.findall(r"\$p\.(\w+)", script(name)))


def test_scripts_are_told_what_they_ask_for_and_nothing_else(tmp_path: Path) -> None:
    settings = HypervSettings(hosts="127.0.0.3")
    replicating = ((), settings, "installation", tmp_path)
    points = set(disks.Reader(*replicating).nodes(MachineRef("m"), "").plain)
    assert points | {"op", "budget_s", "consistency", "errand"} == _asked_of("points") | SHARED
    build = set(hardware.told(Build(2, 1, 1, (), (), ())))
    landings = set(landing.Builder(*replicating).nodes("k", "s", "").plain)
    assert landings | build | {"op", "name", "template", "number", "errand"} == _asked_of("landing") | SHARED
    way = Dock("127.0.0.3", settings, tmp_path, Questions())
    assert set(way.told) == set(re.findall(r"\$to\.(\w+)", script("serve")))
    way.close()
    assert _asked_of("serve") == {"to", "disks"}
    assert _asked_of("pull") == {"to", "image", "head", "target"}
    assert _asked_of("mirrors") == set()
    handing_over = set(handing.nodes((), "installation", MachineRef("m"), "reverse").plain)
    assert handing_over | {"op"} | SHARED == _asked_of("failover") | SHARED


SHARED = {"installation", "folder", "owner", "task_command"}
"""What the parts ask for, which not every script that has them uses."""


def test_every_step_that_a_script_names_has_words_for_people() -> None:
    from connectors.hyperv.rounds import STEPS

    named = set(re.findall(r"Get-Running \$o '(\w+)'", script("orders")))
    named |= set(re.findall(r"step = '(\w+)'", script("orders")))
    assert named == set(STEPS)
