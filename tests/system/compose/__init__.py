"""Builds and runs the compose file with podman, which needs no Docker engine."""
