"""Scenarios: events in a simulated federation and the expected results; playing, seeds, minimising."""
