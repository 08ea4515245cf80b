"""Data sets: from a task's name to batches, by sources, splits, tokens and buckets."""
