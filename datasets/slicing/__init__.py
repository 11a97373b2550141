"""What SliceMaker does: split the cases, cut volumes into slices, keep the folders in order."""
