"""Pictures and masks on disk, in whatever layout they came, turned into tensors."""
