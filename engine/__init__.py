"""What the entry points share: options, training, prediction, evaluation, reports."""
