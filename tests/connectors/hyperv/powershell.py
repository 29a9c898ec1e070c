"""Looks for mistakes in our PowerShell where there is no PowerShell: a parser, the documented cmdlets, and house rules.

What it cannot know: whether a documented parameter works, what a cmdlet does, types of values, what comes by pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tree_sitter
import tree_sitter_pwsh

COMMON = {
    "verbose", "debug", "erroraction", "warningaction", "informationaction", "errorvariable", "warningvariable",
    "informationvariable", "outvariable", "outbuffer", "pipelinevariable", "whatif", "confirm",
}  # fmt: skip
NEWER = {
    "ternary_expression": "the ternary operator is PowerShell 7's",
    "null_coalescing_expression": "?? is PowerShell 7's",
    "pipeline_chain_operator": "&& and || are PowerShell 7's",
}
SUMS = ("additive_expression", "multiplicative_expression")
NEWER_TOKENS = {"??", "??=", "&&", "||", "?.", "?["}
FORBIDDEN = {
    "invoke-expression": "text must not become code",
    "invoke-command": "one host, no second hop",
    "add-type": "no code beside PowerShell",
    "start-job": "it would end with the shell",
    "start-process": "it would end with the shell",
    "import-module": "modules load by themselves",
}
ASKS = {
    "remove-vm", "remove-vmsnapshot", "restore-vmsnapshot", "stop-vm", "restart-vm", "remove-item",
    "unregister-scheduledtask", "remove-clustergroup",
}  # fmt: skip
"""Cmdlets that ask for confirmation, which is an error under -NonInteractive."""


@dataclass(frozen=True, slots=True)
class Finding:
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Cmdlet:
    name: str
    sets: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Set -> parameter in lower case -> name, type, is_mandatory."""

    def parameters(self) -> dict[str, str]:
        return {low: str(it["name"]) for chosen in self.sets.values() for low, it in chosen.items()}


def documented(table: Path) -> dict[str, dict[str, Cmdlet]]:
    """Release of Windows -> cmdlet in lower case -> what the vendor documents."""
    told = json.loads(table.read_text(encoding="utf-8"))
    return {
        release: {
            name.lower(): Cmdlet(
                name,
                {
                    chosen: {
                        parameter: {"name": parameter, "type": kind, "is_mandatory": is_mandatory} | {"name": parameter}
                        for parameter, kind, is_mandatory in parameters
                    }
                    for chosen, parameters in sets.items()
                },
            )
            for name, sets in {**told["core"], **told["servers"][release]}.items()
        }
        for release in told["servers"]
    }


def parse(text: str) -> tree_sitter.Tree:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_pwsh.language()))
    return parser.parse(text.encode("utf-8"))


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text_of(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode("utf-8")


def examine(text: str, cmdlets: Mapping[str, Cmdlet]) -> list[Finding]:
    """Everything that is wrong with a script, in the order of its lines."""
    found = [Finding(1, "not ASCII")] if not text.isascii() else []
    if not re.match(r"# deskyard-script: [a-z]+ \d+\n", text):
        found.append(Finding(1, "the first line does not name the script"))
    root = parse(text).root_node
    functions = {text_of(it).lower() for it in nodes(root) if it.type == "function_name"}
    for node in nodes(root):
        line = node.start_point[0] + 1
        if node.type == "ERROR" or node.is_missing:
            found.append(Finding(line, f"cannot be parsed: {text_of(node)[:40]!r}"))
        elif node.type in NEWER:
            found.append(Finding(line, NEWER[node.type]))
        elif not node.is_named and text_of(node) in NEWER_TOKENS:
            found.append(Finding(line, f"{text_of(node)} is PowerShell 7's"))
        elif node.type == "array_literal_expression" and node.parent and node.parent.type in SUMS:
            found.append(Finding(line, "a comma binds tighter than an operator: put the sum in brackets"))
        elif node.type in ("expandable_string_literal", "expandable_here_string_literal"):
            if any(it.type in ("variable", "sub_expression") for it in nodes(node)):
                found.append(Finding(line, "a value inside a string: join strings instead"))
        elif node.type == "command":
            found += [Finding(line, what) for what in _command(node, cmdlets, functions)]
    return sorted(found, key=lambda it: it.line)


def _command(node: tree_sitter.Node, cmdlets: Mapping[str, Cmdlet], functions: set[str]) -> Iterator[str]:
    named = next((it for it in node.children if it.type == "command_name"), None)
    if named is None:
        yield "a command that is not named"
        return
    name = text_of(named)
    if name.lower() in FORBIDDEN:
        yield f"{name}: {FORBIDDEN[name.lower()]}"
        return
    if name.lower() in functions:
        return
    cmdlet = cmdlets.get(name.lower())
    if cmdlet is None:
        yield f"{name} is no documented cmdlet (or an alias)"
        return
    if name != cmdlet.name:
        yield f"{name} is written {cmdlet.name}"
    bound, loose = _bound(node)
    yield from _fitting(cmdlet, bound, loose)
    if name.lower() in ASKS and not ({"force", "confirm"} & set(bound)):
        yield f"{name} asks for confirmation: -Force or -Confirm:$false"
    if name.lower() == "get-vm" and "name" in bound:
        yield "Get-VM -Name takes wildcards and names are not unique: use -Id"
    if bound.get("vmname", "'*'") != "'*'":
        yield "machines go by id, never by name"


def _bound(node: tree_sitter.Node) -> tuple[dict[str, str], list[str]]:
    """Parameters in lower case with the text of their values ("" for a switch), and arguments without a parameter."""
    elements = next((it for it in node.children if it.type == "command_elements"), None)
    bound: dict[str, str] = {}
    loose: list[str] = []
    last = ""
    for element in elements.children if elements else ():
        if element.type == "command_argument_sep":
            continue
        if element.type == "command_parameter":
            last = text_of(element).lstrip("-").rstrip(":").lower()
            bound[last] = ""
        elif last:
            bound[last], last = text_of(element), ""
        elif element.type != "redirection":
            loose.append(text_of(element))
    return bound, loose


def _fitting(cmdlet: Cmdlet, bound: Mapping[str, str], loose: list[str]) -> Iterator[str]:
    known = {low.lower(): spelled for low, spelled in cmdlet.parameters().items()}
    unknown = [it for it in bound if it not in known and it not in COMMON]
    for it in unknown:
        shortened = [spelled for low, spelled in known.items() if low.startswith(it)]
        yield f"{cmdlet.name} -{it}: " + (f"write -{shortened[0]}" if shortened else "no such parameter")
    if loose and cmdlet.name not in POSITIONAL:
        yield f"{cmdlet.name}: {loose[0]} has no parameter's name"
    if unknown:
        return
    mine = set(bound) - COMMON
    fitting = [
        {low.lower(): it for low, it in chosen.items()}
        for chosen in cmdlet.sets.values()
        if mine <= {low.lower() for low in chosen}
    ]
    if not fitting:
        yield f"{cmdlet.name}: no parameter set has {sorted(mine)}"
        return
    if cmdlet.name in POSITIONAL:
        return
    complete = [one for one in fitting if all(low in mine for low, it in one.items() if it["is_mandatory"])]
    if not complete:
        missing = min(
            ([it["name"] for low, it in one.items() if it["is_mandatory"] and low not in mine] for one in fitting),
            key=len,
        )
        yield f"{cmdlet.name}: -{missing[0]} is missing"
        return
    kinds = {low: str(it["type"]) for low, it in complete[0].items()}
    for it in mine:
        is_switch = kinds[it] == "SwitchParameter"
        if not is_switch and not bound[it]:
            yield f"{cmdlet.name} -{it} has no value"
        if is_switch and bound[it] and not bound[it].startswith("$"):
            yield f"{cmdlet.name} -{it} is a switch"


POSITIONAL = {"ForEach-Object", "Where-Object", "New-Object"}
"""Where everybody writes the first argument without its parameter's name."""
