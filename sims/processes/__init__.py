"""Federations of real processes on this machine: founding, watching, and `collegium demo`."""
