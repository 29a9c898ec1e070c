"""The engine room of replication: streams of blocks, image formats, and the vault that recovery points lie in.

Knows no framework, no broker and no platform. Connectors bring sources and sinks of their own (`disks/base.py`).
"""
