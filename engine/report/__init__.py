"""One self-contained page about one or several networks: scores, failures, a viewer of the cases, charts."""
