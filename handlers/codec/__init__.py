"""EnCodec: encodes audio into latents and decodes latents into audio."""
