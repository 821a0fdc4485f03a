"""From modalities and tasks to the components of a charter: shapes, initial bounds, noise, grids. No torch."""

PRESETS = ("digits", "oulad")  # presets.py has them; here, importing their names brings no numpy
