"""The job queue and the life cycle of a job."""
