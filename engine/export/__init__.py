"""A trained network in files that other programs run: ONNX, torch.export, safetensors, and what is said of them."""
