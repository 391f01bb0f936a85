"""Pictures and films in, masks out: what `jobs.predict` is made of."""
