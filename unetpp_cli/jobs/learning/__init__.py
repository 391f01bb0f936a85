"""A training run, on disk and under way: what `jobs.train` is made of."""
