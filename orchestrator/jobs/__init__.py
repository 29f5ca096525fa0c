"""The queue and the life of a job."""
