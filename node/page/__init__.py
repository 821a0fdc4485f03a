"""The page for an operator: a node's state in a browser on the same machine (ADR 22).

`collegium dashboard` runs it as a process of its own, on a port of 127.0.0.1. It asks the daemon over its socket as
the commands do, and reads the node's files where no daemon answers.
"""
