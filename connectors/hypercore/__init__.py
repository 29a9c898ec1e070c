"""Scale Computing HyperCore (HC3) over REST v1."""
