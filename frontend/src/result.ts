/** Displays and plays the generated music, and compares it with the source tracks. */

import type WaveSurfer from "wavesurfer.js";
import SpectrogramPlugin from "wavesurfer.js/plugins/spectrogram";
import { downloadUrl, music } from "./api";
import { cut, decode, RATE } from "./audio";
import { announce, find, fromTemplate, setText } from "./dom";
import type { Files } from "./files";
import { type Playback, play } from "./player";
import { WAVEFORM_HEIGHT } from "./sizes";
import type { Job } from "./store";
import { formatTime, WINDOW_S } from "./times";
import { drawWaveform } from "./waveform";

const SPECTROGRAM_HEIGHT = 128;
const MAX_FREQUENCY_HZ = RATE / 2;

type Samples = Float32Array<ArrayBuffer>;

export class ResultView {
  readonly element = fromTemplate("result-view");
  private readonly playButton: HTMLButtonElement;
  private readonly inputs = this.element.querySelectorAll<HTMLInputElement>(".voices input");
  private waveform: WaveSurfer | null = null;
  private playback: Playback | null = null;
  private voices: Samples[] = [];
  private time = 0;
  private destroyed = false;

  constructor(
    readonly job: Job,
    jobId: string,
    private readonly files: Files,
  ) {
    this.playButton = find(this.element, ".play");
    this.playButton.disabled = true;
    // Reserve the height in advance, so that drawing does not move buttons under the pointer.
    find(this.element, ".waveform").style.minHeight = `${WAVEFORM_HEIGHT}px`;
    find(this.element, ".spectrogram").style.minHeight = `${SPECTROGRAM_HEIGHT}px`;
    this.inputs.forEach((input, voice) => {
      input.disabled = voice > 0;
      const track = job.tracks?.[voice - 1];
      if (track) setText(find(input.parentElement ?? document, "span"), track.name);
    });
    this.playButton.addEventListener("click", () => this.togglePlay());
    find(this.element, ".voices").addEventListener("change", () =>
      this.playback?.switchTo(this.voice),
    );
    find<HTMLAnchorElement>(this.element, ".download").href = downloadUrl(jobId);
    this.showTime(0);
  }

  /** Downloads, decodes and draws the music; the element must be in the document. */
  async load(jobId: string): Promise<void> {
    const samples = await decode(await music(jobId));
    if (this.destroyed) return;
    this.voices = [samples];
    this.draw(samples);
    this.playButton.disabled = false;
    await this.loadTracks();
  }

  destroy(): void {
    this.destroyed = true;
    this.playback?.stop();
    this.waveform?.destroy();
    this.element.remove();
  }

  private draw(samples: Samples): void {
    const container = find(this.element, ".waveform");
    const duration = samples.length / RATE;
    this.waveform = drawWaveform(container, samples, duration, "accent");
    const spectrogram = this.waveform.registerPlugin(
      SpectrogramPlugin.create({
        container: find(this.element, ".spectrogram"),
        height: SPECTROGRAM_HEIGHT,
        frequencyMax: MAX_FREQUENCY_HZ,
        fftSamples: 1024,
        scale: "mel",
        labels: false,
      }),
    );
    this.waveform.on("interaction", (seconds) => this.seek(seconds));
    spectrogram.on("click", (fraction) => this.seek(fraction * duration));
  }

  /** Loads the windows of the source tracks, if this browser still has them. */
  private async loadTracks(): Promise<void> {
    const tracks = this.job.tracks ?? [];
    const decoded = await Promise.all(
      tracks.map(async ({ fileId }) => (await this.files.audio(fileId)).samples),
    );
    if (this.destroyed) return;
    [1, 2].forEach((voice) => {
      const [track, samples] = [tracks[voice - 1], decoded[voice - 1]];
      const input = this.inputs[voice];
      if (input) input.disabled = !(track && samples);
      this.voices[voice] =
        track && samples ? cut(samples, track.start, WINDOW_S) : new Float32Array();
    });
    if (tracks.length === 0 || decoded.some((samples) => samples === null)) {
      const note = "Not all source tracks can be played for comparison in this browser.";
      setText(find(this.element, ".note"), note);
    }
    if (this.playback) await this.playFrom(this.time); // restart, with the source tracks added
  }

  private get voice(): number {
    return Number(find<HTMLInputElement>(this.element, ".voices input:checked").value);
  }

  private async togglePlay(): Promise<void> {
    if (this.playback) this.playback.stop();
    else await this.playFrom(this.time);
  }

  private async seek(seconds: number): Promise<void> {
    this.showTime(seconds);
    if (this.playback) await this.playFrom(seconds);
  }

  private async playFrom(from: number): Promise<void> {
    this.playback = await play({
      voices: this.voices,
      activeVoice: this.voice,
      from,
      onTime: (seconds) => this.showTime(seconds),
      onStop: (seconds) => {
        this.playback = null;
        setText(this.playButton, "Play");
        this.showTime(seconds);
      },
      onNoSound: (sentence) => {
        setText(find(this.element, ".note"), sentence);
        announce(sentence);
      },
    });
    if (this.playback) setText(this.playButton, "Pause");
  }

  private showTime(seconds: number): void {
    this.time = seconds;
    this.waveform?.setTime(seconds);
    const fraction = String(seconds / WINDOW_S);
    find(this.element, ".spectrogram").style.setProperty("--position", fraction);
    const text = `${formatTime(seconds, 1)} of ${formatTime(WINDOW_S, 1)}`;
    setText(find(this.element, ".time"), text);
  }
}
