"""The worker, which runs jobs."""
