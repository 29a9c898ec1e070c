"""Benches: `python -m tests.bench [NAME]` measures, one JSON object a line; `test_budgets.py` pins the counts.

Figures with their method and date stand in `docs/speed.md`.
"""
