"""Judges recorded exchanges by Nutanix's own classes. Exchanges as JSON on standard input, verdicts on standard output.

Each exchange: verb, path (with the query, as it was sent), headers, body, status, answer, and whether that is a file.
Runs in the witness's own environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.witnesses.ntnx import models

OBJECTS = "/api/prism/v4.0/objects/"
"""S3, of which these libraries know nothing."""


def judge(exchange: dict[str, Any]) -> list[str]:
    """What is wrong with a request and its answer; every finding begins with the side it concerns."""
    verb, parts = exchange["verb"], urlsplit(exchange["path"])
    if verb == "OPTIONS" or parts.path.startswith(OBJECTS):
        return []
    operation = models.find_operation(verb, parts.path)
    if operation is None:
        return [f"request: there is no {verb} {parts.path}"]
    found = [
        f"request: {operation.method} knows no query {name}"
        for name, _ in parse_qsl(parts.query, keep_blank_values=True)
        if name not in operation.queries
    ]
    if verb != "GET" and not any(name.lower() == "ntnx-request-id" for name in exchange["headers"]):
        found.append("request: NTNX-Request-Id is missing")
    found += [f"request: {problem}" for problem in _judge_body(operation, exchange["body"])]
    if exchange["is_file"]:
        return found + ([] if operation.answer.endswith("FileApiResponse") else ["answer: a file, and none was due"])
    if exchange["status"] in (200, 201, 202):
        answer = json.loads(exchange["answer"])
        found += [f"answer: {problem}" for problem in models.check(operation.package, operation.answer, answer)]
    elif exchange["answer"].strip().startswith("{"):
        error = json.loads(exchange["answer"])
        namespace = parts.path.split("/")[2]
        found += [
            f"answer: {problem}"
            for problem in models.check(operation.package, f"{namespace}.v4.error.ErrorResponse", error["data"])
        ]
    return found


def _judge_body(operation: models.Operation, text: str) -> list[str]:
    body = json.loads(text) if text.strip() else {}
    if not operation.body:
        return [] if not body else [f"{operation.method} takes no body"]
    return models.check(operation.package, operation.body, body)


if __name__ == "__main__":
    json.dump([judge(exchange) for exchange in json.load(sys.stdin)], sys.stdout)
