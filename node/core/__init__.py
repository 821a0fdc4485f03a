"""The node's pure core: events in, effects out. No I/O, no clock, no randomness; the simulator runs it unchanged."""
