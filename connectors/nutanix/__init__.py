"""Nutanix AHV through Prism Central's v4 API."""
