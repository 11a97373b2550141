"""Where networks look: Grad-CAM by medcam, as numbers over all slices and as pictures of some."""
