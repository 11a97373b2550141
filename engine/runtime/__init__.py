"""Exported networks: reading their files safely, and running them in place of PyTorch's."""
