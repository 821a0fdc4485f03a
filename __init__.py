"""Collegium: institutions train one modular model together, without a server."""
