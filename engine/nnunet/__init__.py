"""Networks that nnU-Net trained, as teachers: their folders, and what nnU-Net does to an image before and after."""
