"""Reading of uploaded tracks with ffmpeg."""
