"""Nutanix's own client libraries as a witness: they judge connector and lab, and drive the lab themselves."""
