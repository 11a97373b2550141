"""What every other package uses: errors, files, registries, seeding, progress. Imports no other package here."""
