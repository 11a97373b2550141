"""The published experiment as one command: what it needs before it starts, and its table."""
