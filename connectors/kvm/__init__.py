"""KVM through libvirt. `connector.py` is the contract, `client.py` the wire, `mapping.py` the XML; README.md says the
rest."""
