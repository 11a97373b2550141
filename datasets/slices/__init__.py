"""Folders of slices: their manifest, their training and validation cases, slices without masks."""
