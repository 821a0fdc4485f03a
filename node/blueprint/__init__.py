"""From modalities and tasks to the components of a charter: shapes, initial bounds, noise, grids. No torch."""
