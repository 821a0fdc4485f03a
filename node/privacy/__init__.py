"""The privacy accountant, the calibration of noise, and the logic of the budget. Pure: no I/O, no torch."""
