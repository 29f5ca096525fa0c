"""The job queue and the lifecycle of a job."""
