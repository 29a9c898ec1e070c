"""A simulated vCenter, or stand-alone ESXi host, that speaks the vSphere Web Services API (SOAP, `urn:vim25`)."""
