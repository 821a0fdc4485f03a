"""The learner's adversary: it attacks the training that runs here, and times it. The learner imports nothing of it.

probes (what is attacked, and how) use canaries (students who are in or not) and faults (mistakes that must be found);
crosscheck is a second accountant; timing measures a step. worker answers requests, beside the learner's own.
"""
