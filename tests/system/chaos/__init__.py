"""What was accepted is never lost: MusicLab killed at random under steady submissions."""
