"""The compose file built and run for real, by podman where there is no Docker engine."""
