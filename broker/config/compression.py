"""What text there is goes compressed to browsers that take it: pages, styles, scripts."""

from __future__ import annotations

import gzip
import os
from functools import lru_cache

from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.utils.cache import patch_vary_headers

KINDS = ("text/", "application/json", "application/javascript", "image/svg+xml")
LEAST = 500
"""Bytes; less is not worth it."""


class Compressed(GZipMiddleware):
    """Django's own for pages (it pads them by chance, against guessing secrets by length), and for files beside it.

    Streams of events go as they come. A file is compressed once a process and change.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if isinstance(response, FileResponse):
            return _file(request, response)
        if not isinstance(response, HttpResponse):
            return response
        return super().process_response(request, response)


def _file(request: HttpRequest, response: FileResponse) -> HttpResponseBase:
    name = getattr(response.file_to_stream, "name", "")
    is_text = response.get("Content-Type", "").startswith(KINDS)
    if response.status_code != 200 or not isinstance(name, str) or not name or not is_text:
        return response
    patch_vary_headers(response, ("Accept-Encoding",))
    if "gzip" not in request.headers.get("Accept-Encoding", "") or response.has_header("Content-Encoding"):
        return response
    found = os.stat(name)
    if found.st_size < LEAST:
        return response
    content = _compressed(name, found.st_mtime_ns, found.st_size)
    headers = {key: value for key, value in response.items() if key not in ("Content-Length", "Accept-Ranges")}
    response.close()
    return HttpResponse(content, headers={**headers, "Content-Encoding": "gzip"})


@lru_cache(maxsize=512)
def _compressed(path: str, changed_ns: int, size: int) -> bytes:
    with open(path, "rb") as file:
        return gzip.compress(file.read(), mtime=0)
