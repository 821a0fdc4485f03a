"""The daemon: pure core, runtime, network, store, learner, privacy and control API."""
