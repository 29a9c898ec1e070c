"""RDP in the browser: RDCleanPath on the browser's side, X.224, TLS and CredSSP on the guest's."""
