"""The daemon's control API on a Unix socket of its home (0600), and the client of it."""
