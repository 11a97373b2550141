"""The ground floor: errors, names, seeding, progress, files. Imports nothing else of the project."""
