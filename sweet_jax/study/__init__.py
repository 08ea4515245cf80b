"""Studies: methods x tasks x seeds, run cell by cell, then aggregated."""
