"""A simulated Scale Computing HyperCore cluster: REST v1, and v2 where 9.7.1 has it.

What it does comes from the vendor's field notes (github.com/ScaleComputing/RestAPIExamples,
docs/hypercore-api-field-notes.md, on 9.6 to 9.8), examples (vm_lifecycle.py) and Ansible collection. What those leave
open is said where it is decided.
"""
