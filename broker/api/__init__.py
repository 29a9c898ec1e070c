"""REST for tools, described by OpenAPI at /api/v1/openapi.json. Reads by selectors, acts by services, decides nothing.

Ids are UUID strings, times RFC 3339 in UTC, units stand in names, errors are RFC 9457 problems, lists are
`{"items", "total"}` with `limit` and `offset`, newest first, and hold only what the caller may see.
"""
