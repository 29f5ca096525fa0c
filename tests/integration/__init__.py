"""Tests with real servers: TorchServe, S3, PostgreSQL."""
