"""Turning logits into losses and losses into weights."""
