"""Alarms: an operator is told once that a problem of this node began, and once that it ended.

Notes (node/views/notes.py) are the problems. A note above the level of information has to last for `after_seconds`
before it is told, so that a neighbour who is out of reach for a moment alarms nobody.
"""
