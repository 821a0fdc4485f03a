"""An institution's data folder: `dataset.toml`, tables, and the arrays that the learner trains on. No torch here."""
