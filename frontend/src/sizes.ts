/** In pixels. Part of the only inline style that the content security policy allows. */
export const WAVEFORM_HEIGHT = 96;
