"""vCenter and stand-alone ESXi hosts."""
