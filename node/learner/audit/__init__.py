"""The learner's adversary: it attacks this package's training, and times it. The learner imports nothing of it.

probes (the attacks) use canaries (students who are in or not) and faults (mistakes that must be found); crosscheck is a
second accountant; timing measures a step. worker answers their requests, beside the learner's own.
"""
