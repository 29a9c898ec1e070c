"""Simulated hypervisors that speak each maker's real wire protocol: for demos, training, what-if and tests.

A *world* (hosts, storage, networks, machines, guests, time) knows no maker; a *server* puts one maker's protocol before
it. The lab shares no code with the connectors that talk to it: it would share their misunderstandings. It listens on
loopback alone, and nothing in it was ever a hypervisor: what the platform's real appliance does may differ.
"""
