"""EnCodec: audio to latents and back."""
