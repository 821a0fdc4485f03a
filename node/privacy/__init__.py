"""The privacy accountant, the calibration of noise, the budget's logic, the policies in force. No torch.

Pure, but for `jurisdiction`, which reads the files of presets.
"""
