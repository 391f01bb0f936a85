"""Turning logits into probabilities, masks and scores."""
