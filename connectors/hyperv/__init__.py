"""Microsoft Hyper-V: stand-alone hosts and failover clusters, over WinRM."""
