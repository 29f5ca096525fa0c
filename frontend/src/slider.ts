/** A track's waveform with its window, which can be moved by mouse, touch and keyboard. */

import type WaveSurfer from "wavesurfer.js";
import RegionsPlugin, { type Region } from "wavesurfer.js/plugins/regions";
import { peaksOf, RATE } from "./audio";
import { fitStart, WINDOW_S, windowText } from "./times";
import { color, dark, drawWaveform } from "./waveform";

const MIN_PX_PER_S = 2; // keeps the window of a long track large enough to drag
const MAX_PX_PER_S = 100;
const STEPS: Record<string, number> = {
  ArrowLeft: -1,
  ArrowDown: -1,
  ArrowRight: 1,
  ArrowUp: 1,
  PageDown: -WINDOW_S,
  PageUp: WINDOW_S,
  Home: -Infinity,
  End: Infinity,
};

export class WindowSlider {
  private readonly waveform: WaveSurfer;
  private readonly duration: number;
  private region: Region | null = null;
  private start: number;

  /** `onMove` is called with the new start after the user moves the window. */
  constructor(
    container: HTMLElement,
    private readonly label: string,
    samples: Float32Array,
    start: number,
    private readonly onMove: (start: number) => void,
  ) {
    this.start = start;
    this.duration = samples.length / RATE;
    this.waveform = drawWaveform(container, peaksOf(samples), this.duration, "wave");
    const regions = this.waveform.registerPlugin(RegionsPlugin.create());
    this.waveform.once("ready", () => {
      this.zoom(0);
      this.region = regions.addRegion({
        start,
        end: Math.min(start + WINDOW_S, this.duration),
        color: color("window"),
        resize: false,
      });
      this.makeSlider(this.region);
      // A click inside the window does not move it.
      this.region.on("click", (event) => event.stopPropagation());
      this.region.on("update", () => this.moved(this.region?.start ?? 0));
      this.moveTo(start);
      this.reveal();
    });
    const repaint = () => this.region?.setOptions({ color: color("window") });
    dark.addEventListener("change", repaint);
    this.waveform.once("destroy", () => dark.removeEventListener("change", repaint));
    // A click outside the window centers it there.
    this.waveform.on("interaction", (time) => this.moved(time - WINDOW_S / 2));
  }

  moveTo(start: number): void {
    this.start = start;
    this.region?.setOptions({ start, end: Math.min(start + WINDOW_S, this.duration) });
    this.region?.element?.setAttribute("aria-valuenow", String(start));
    this.region?.element?.setAttribute("aria-valuetext", windowText(start, this.duration));
    this.waveform.setTime(start);
  }

  /** Scrolls the window, or one that starts at `start`, into view. */
  reveal(start = this.start): void {
    const pixelsPerS = this.waveform.getWrapper().clientWidth / this.duration;
    const visibleS = this.waveform.getWidth() / pixelsPerS;
    this.waveform.setScrollTime(Math.max(0, start + WINDOW_S / 2 - visibleS / 2));
  }

  showTime(seconds: number): void {
    this.waveform.setTime(seconds);
  }

  /** Sets the zoom level, from 0 (the whole track, unless it is too long) to 1. */
  zoom(level: number): void {
    const fitScale = Math.max(MIN_PX_PER_S, this.waveform.getWidth() / this.duration);
    const maxScale = Math.max(MAX_PX_PER_S, fitScale);
    // Level 0 does not use `fitScale`: its rounding would add a scroll bar.
    this.waveform.zoom(level > 0 ? fitScale * (maxScale / fitScale) ** level : MIN_PX_PER_S);
    if (level > 0) this.reveal();
  }

  destroy(): void {
    this.waveform.destroy();
  }

  private moved(start: number): void {
    this.moveTo(fitStart(start, this.duration));
    this.onMove(this.start);
  }

  private makeSlider({ element }: Region): void {
    if (element === null) return;
    const attributes = {
      role: "slider",
      tabindex: "0",
      "aria-label": `${this.label}: start of the window, in seconds`,
      "aria-valuemin": "0",
      "aria-valuemax": String(fitStart(Infinity, this.duration)),
    };
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const start = fitStart(this.start + (event.shiftKey ? step / 10 : step), this.duration);
      this.reveal(start); // scroll first: an invisible region leaves the DOM and loses focus
      this.moved(start);
    });
  }
}
