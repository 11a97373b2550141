"""Whether training on a GPU is right, and how fast it is: what `make gpu` runs."""
