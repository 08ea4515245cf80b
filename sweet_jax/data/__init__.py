"""From a task's name to batches: sources, splits, tokens, buckets."""
