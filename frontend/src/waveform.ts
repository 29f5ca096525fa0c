/** Draws waveforms; playback is handled elsewhere. */

import WaveSurfer from "wavesurfer.js";
import { WAVEFORM_HEIGHT } from "./sizes";

export const dark = matchMedia("(prefers-color-scheme: dark)");

/** Returns a color defined in the style sheet. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function colors(played: string) {
  return { waveColor: color("wave"), progressColor: color(played), cursorColor: color("cursor") };
}

/**
 * Draws a waveform into a container.
 *
 * @param peaks values from -1 to 1, at any rate.
 * @param duration in seconds.
 * @param played the color of the part before the cursor.
 */
export function drawWaveform(
  container: HTMLElement,
  peaks: Float32Array,
  duration: number,
  played: "wave" | "accent",
): WaveSurfer {
  const waveform = WaveSurfer.create({
    container,
    height: WAVEFORM_HEIGHT,
    normalize: true,
    autoScroll: false,
    peaks: [peaks],
    duration,
    ...colors(played),
  });
  const repaint = () => waveform.setOptions(colors(played));
  dark.addEventListener("change", repaint);
  waveform.once("destroy", () => dark.removeEventListener("change", repaint));
  return waveform;
}
