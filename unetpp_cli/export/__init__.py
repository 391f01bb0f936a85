"""A trained network for other runtimes: ONNX and torch.export. Knows files and networks, no terminal."""
