"""Training: from options to a run, and its loop."""
