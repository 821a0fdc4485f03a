"""Pretrained models in local folders: where one lies, what its weights digest to, which tensors go on it. No torch."""
