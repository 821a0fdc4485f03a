"""How packages of the registries hold a model, each read without running anything of it, to the tensors of its family.

A size that a file claims is compared with the file before anything is made of it.
"""
