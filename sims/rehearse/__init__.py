"""`collegium rehearse`: a recipe played against simulated members, before anything is decided."""
