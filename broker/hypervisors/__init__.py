"""The one gate to connectors: opens them, decrypts their secrets, gives them a place to work."""
