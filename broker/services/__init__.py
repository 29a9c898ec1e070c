"""Verbs: the only code that writes. Transactions, permission checks and audit live here; every write starts here.

Services take keyword arguments, decide by the rules in `broker/domain`, and call no hypervisor inside a transaction.
"""
