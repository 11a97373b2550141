"""From raw cases to batches: volumes, slices on disk, framed and augmented slices."""
