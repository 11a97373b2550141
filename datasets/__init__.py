"""From raw cases to batches: raw files, volumes, slices on disk, framed and augmented slices."""
