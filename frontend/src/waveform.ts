/** A waveform to look at; sound and time are others' business. */

import WaveSurfer from "wavesurfer.js";
import { WAVEFORM_HEIGHT } from "./sizes";

export const dark = matchMedia("(prefers-color-scheme: dark)");

/** A color of the style sheet. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function colors(played: string) {
  return { waveColor: color("wave"), progressColor: color(played), cursorColor: color("cursor") };
}

/**
 * Draw a waveform into a container.
 *
 * @param peaks of any rate, -1 to 1.
 * @param duration in seconds.
 * @param played the color of what lies before the cursor.
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
