"""Many nodes on one machine: simulated network and clock, demo federations, benchmarks."""
