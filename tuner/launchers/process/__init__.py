"""The launcher of processes on this host."""
