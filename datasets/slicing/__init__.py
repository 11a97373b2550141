"""What SliceMaker does: split the cases, cut volumes into slices, keep the output folders up to date."""
