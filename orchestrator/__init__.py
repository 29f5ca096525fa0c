"""MusicLab outside the model: the command line, packing, and the model server."""
