/** Pixels; part of the one inline style that the content security policy allows. */
export const WAVEFORM_HEIGHT = 96;
