"""Public education data, shared out to institutions: one data folder each. Nothing here is needed to train."""
