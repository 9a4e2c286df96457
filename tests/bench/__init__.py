"""`make bench`: figures, not verdicts."""
