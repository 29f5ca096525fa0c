"""MusicLab's command line, HTTP API, worker, archive packing and TorchServe management."""
