"""A hypervisor that does everything at once and fails on demand. For tests, never part of a journey."""
