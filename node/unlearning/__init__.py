"""Unlearning: drawn and excluded students, the reach and cost of a withdrawal, one student's removal."""
