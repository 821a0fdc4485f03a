"""Scenarios: what happens to a simulated federation and what has to come of it; playing, seeds, minimising."""
