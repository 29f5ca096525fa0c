"""Validates, probes and cuts uploaded tracks with ffmpeg."""
