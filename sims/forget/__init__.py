"""Is it forgotten? A simulated federation before a withdrawal, after each way to unlearn it, and without it throughout.

The learner is the real one and the folds are the product's; what is simulated is the network, and that a seed, not the
system's randomness, samples students and noise.
"""
