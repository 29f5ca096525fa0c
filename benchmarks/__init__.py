"""What MusicLab's speed claims rest on; each module is a command that prints its figures."""
