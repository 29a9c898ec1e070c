"""The API's addresses and its description."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

import broker.api
from broker.api import (
    applications,
    desktops,
    entitlements,
    failovers,
    hypervisors,
    networks,
    notices,
    operations,
    pools,
    problems,
    publications,
    pushes,
    recovery,
    replication,
    requests,
    runs,
    sessions,
    templates,
    vaults,
)
from broker.api.access import ANYBODY_SIGNED_IN

REFUSALS = {
    "401": "Nobody is signed in, and there is no valid token.",
    "403": "Known, but not allowed to this person or token.",
    "404": "There is no such thing, or not for this person.",
    "409": "Right in itself, but not now.",
    "422": "The input is wrong; `fields` says what and why.",
}


class DescribedApi(NinjaAPI):
    """The description names the problems that every operation may answer with, in their own media type."""

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        described = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        described["components"]["schemas"]["Problem"] = schema
        for methods in described["paths"].values():
            for operation in methods.values():
                for status, meaning in REFUSALS.items():
                    operation["responses"][status] = {"description": meaning, "content": content}
        return described


api = DescribedApi(
    title="Deskyard",
    version="1",
    description=broker.api.__doc__ or "",
    urls_namespace="api",
    auth=ANYBODY_SIGNED_IN,
    docs_url=None,
)
problems.register(api)
for prefix, router in (
    ("/hypervisors", hypervisors.router),
    ("/networks", networks.router),
    ("/templates", templates.router),
    ("/templates", publications.of_templates),
    ("/publications", publications.router),
    ("/versions", templates.versions),
    ("/copies", templates.copies),
    ("/pools", pools.router),
    ("/pools", pushes.of_pools),
    ("/pushes", pushes.router),
    ("/applications", applications.router),
    ("/entitlements", entitlements.router),
    ("/requests", requests.router),
    ("/desktops", desktops.router),
    ("/sessions", sessions.router),
    ("/notices", notices.router),
    ("/operations", operations.router),
    ("/replication/vaults", vaults.router),
    ("/replication/policies", replication.router),
    ("/replication/runs", runs.router),
    ("/replication/recovery-points", recovery.router),
    ("/replication/failovers", failovers.router),
):
    api.add_router(prefix, router)

app_name = "api"
urlpatterns: list[URLPattern] = []
for pattern in api.urls[0]:
    if isinstance(pattern, URLPattern):
        answers = problems.unknown if pattern.name == "api-root" else pattern.callback
        pattern.callback = problems.with_problems(answers)
        urlpatterns.append(pattern)
urlpatterns.append(re_path(r"^.*$", csrf_exempt(problems.unknown)))
