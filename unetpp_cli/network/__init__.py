"""UNet++ itself, its weights file, and cutting it at a depth. Knows nothing of images or of the terminal."""
