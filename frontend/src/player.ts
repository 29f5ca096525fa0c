/** Plays audio: one playback at a time, with one audible voice out of several synchronized ones. */

import { RATE } from "./audio";

const FADE_S = 0.01; // without a fade, switching voices causes an audible click

export interface PlaybackOptions {
  /** Samples of each voice; all voices start together, and only one is audible. */
  voices: Float32Array<ArrayBuffer>[];
  /** Index of the audible voice. */
  activeVoice: number;
  /** Position to start from, in seconds. */
  from: number;
  onTime: (seconds: number) => void;
  /** Called when playback ends, is stopped, or is replaced by another. */
  onStop: (seconds: number) => void;
  /** Called with an explanation if the browser cannot play audio. */
  onNoSound: (sentence: string) => void;
}

const START_TIMEOUT_MS = 5_000; // Firefox takes one or two seconds to start
const NO_SOUND = "This browser cannot play audio. Check your audio output device, then try again.";

let context: AudioContext | null = null;
let current: Playback | null = null;
let turn = 0; // identifies the latest request: earlier ones that have not started are dropped

/** A running playback. */
export class Playback {
  private readonly gains: GainNode[] = [];
  private readonly sources: AudioBufferSourceNode[] = [];
  private readonly length: number;
  private readonly startedAt: number;
  private frame = 0;

  constructor(
    private readonly context: AudioContext,
    private readonly options: PlaybackOptions,
  ) {
    this.length = Math.max(...options.voices.map((samples) => samples.length)) / RATE;
    options.voices.forEach((samples, index) => {
      const buffer = context.createBuffer(1, Math.max(1, samples.length), RATE);
      buffer.copyToChannel(samples, 0);
      const gain = new GainNode(context, { gain: index === options.activeVoice ? 1 : 0 });
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(gain).connect(context.destination);
      this.gains.push(gain);
      this.sources.push(source);
      if (buffer.duration >= this.length) source.onended = () => this.stop();
    });
    this.startedAt = context.currentTime;
    for (const source of this.sources) source.start(this.startedAt, options.from);
    this.tick();
  }

  /** Current position in seconds. */
  get time(): number {
    const passed = this.context.currentTime - this.startedAt;
    return Math.min(this.options.from + passed, this.length);
  }

  /** Makes another voice audible, at the same position. */
  switchTo(voice: number): void {
    this.gains.forEach((gain, index) => {
      gain.gain.setTargetAtTime(index === voice ? 1 : 0, this.context.currentTime, FADE_S / 3);
    });
  }

  stop(): void {
    if (current !== this) return;
    current = null;
    cancelAnimationFrame(this.frame);
    const time = this.time;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
    for (const gain of this.gains) gain.disconnect();
    this.options.onStop(time >= this.length ? 0 : time);
  }

  private tick(): void {
    this.options.onTime(this.time);
    this.frame = requestAnimationFrame(() => this.tick());
  }
}

/**
 * Starts playback. Call it from a click or key handler: browsers block audio before the first
 * user interaction.
 *
 * Returns null if the browser cannot play audio, or if another playback was requested meanwhile.
 */
export async function play(options: PlaybackOptions): Promise<Playback | null> {
  current?.stop();
  turn += 1;
  const thisTurn = turn;
  context ??= new AudioContext({ sampleRate: RATE });
  const isRunning = context.state === "running" || (await resume(context));
  if (thisTurn !== turn) return null;
  if (!isRunning) {
    options.onNoSound(NO_SOUND);
    return null;
  }
  current = new Playback(context, options);
  return current;
}

/** Returns whether the context starts; without an output device Firefox waits indefinitely. */
function resume(context: AudioContext): Promise<boolean> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(false), START_TIMEOUT_MS);
    context.resume().then(
      () => resolve(true),
      () => resolve(false),
    );
  });
}
