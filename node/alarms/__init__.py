"""Alarms: the daemon reports to its operator that a problem began, once, and that it ended, once.

Notes (node/views/notes.py) are the problems. A note above the level of information has to last for `after_seconds`
before it is reported, so that a neighbour who is out of reach for a moment alarms nobody.
"""
