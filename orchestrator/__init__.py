"""MusicLab outside the model: command line, packing, the model server and, over HTTP, its client."""
