"""Many nodes in one process: the daemon's own core on a simulated network and clock, its faults and its liars."""
