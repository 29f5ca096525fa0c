"""Uploaded tracks, read with ffmpeg."""
