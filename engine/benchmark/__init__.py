"""Many students, methods and seeds side by side."""
