"""What a model or somebody's masks are worth: what `jobs.evaluate` and `jobs.prune` are made of."""
