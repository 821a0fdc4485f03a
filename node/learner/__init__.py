"""The learner: a worker process that trains and evaluates. `protocol` and `client` import no torch, the rest may."""
