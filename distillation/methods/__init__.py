"""Distillation methods, one file each, named as they are typed; `distillation.METHODS` lists them."""
