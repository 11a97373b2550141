"""Folders of slices: what they hold, which cases train and validate, slices without masks."""
