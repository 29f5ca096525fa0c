/** A track's waveform with the window that the model hears, to be moved by mouse, finger and keys. */

import type WaveSurfer from "wavesurfer.js";
import RegionsPlugin, { type Region } from "wavesurfer.js/plugins/regions";
import { peaksOf, RATE } from "./audio";
import { fitStart, WINDOW_S, windowText } from "./times";
import { color, dark, drawWaveform } from "./waveform";

const MIN_PX_PER_S = 2; // the window of a long track can still be seen and held
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

  /** `onMove` is called when the user has moved the window. */
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
      this.region.on("click", (event) => event.stopPropagation()); // it is not beside the window
      this.region.on("update", () => this.moved(this.region?.start ?? 0));
      this.moveTo(start);
      this.reveal();
    });
    const repaint = () => this.region?.setOptions({ color: color("window") });
    dark.addEventListener("change", repaint);
    this.waveform.once("destroy", () => dark.removeEventListener("change", repaint));
    // A click beside the window brings its middle there.
    this.waveform.on("interaction", (time) => this.moved(time - WINDOW_S / 2));
  }

  moveTo(start: number): void {
    this.start = start;
    this.region?.setOptions({ start, end: Math.min(start + WINDOW_S, this.duration) });
    this.region?.element?.setAttribute("aria-valuenow", String(start));
    this.region?.element?.setAttribute("aria-valuetext", windowText(start, this.duration));
    this.waveform.setTime(start);
  }

  /** Bring the window into sight, or one that starts elsewhere. */
  reveal(start = this.start): void {
    const pixelsPerS = this.waveform.getWrapper().clientWidth / this.duration;
    const seen = this.waveform.getWidth() / pixelsPerS;
    this.waveform.setScrollTime(Math.max(0, start + WINDOW_S / 2 - seen / 2));
  }

  showTime(seconds: number): void {
    this.waveform.setTime(seconds);
  }

  /** From 0, all of it or nearly so, to 1. */
  zoom(share: number): void {
    const fitting = Math.max(MIN_PX_PER_S, this.waveform.getWidth() / this.duration);
    const most = Math.max(MAX_PX_PER_S, fitting);
    // Not `fitting` itself, of which a fraction of a pixel makes a scroll bar.
    this.waveform.zoom(share > 0 ? fitting * (most / fitting) ** share : MIN_PX_PER_S);
    if (share > 0) this.reveal();
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
      "aria-label": `${this.label}: where the window starts, in seconds`,
      "aria-valuemin": "0",
      "aria-valuemax": String(fitStart(Infinity, this.duration)),
    };
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const start = fitStart(this.start + (event.shiftKey ? step / 10 : step), this.duration);
      this.reveal(start); // first: out of sight, the window is taken out of the page, with its focus
      this.moved(start);
    });
  }
}
