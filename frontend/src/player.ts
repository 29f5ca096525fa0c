/** Plays sound: one thing at a time, and of several that run side by side the one that is chosen. */

import { RATE } from "./audio";

const FADE_S = 0.01; // a switch without it clicks

export interface Playing {
  /** Samples that start together; only one of them is heard. */
  voices: Float32Array<ArrayBuffer>[];
  heard: number;
  /** Seconds from the start of the voices. */
  from: number;
  onTime: (seconds: number) => void;
  /** It came to its end, was stopped, or something else plays. */
  onStop: (seconds: number) => void;
  /** Nothing is heard, and the sentence says why. */
  onSilence: (sentence: string) => void;
}

const STARTED_WITHIN_MS = 5_000; // Firefox takes one or two seconds for the first sound
const NO_SOUND = "This browser gets no sound out. See what it plays on, and try again.";

let context: AudioContext | null = null;
let current: Playback | null = null;
let turn = 0; // of several that are asked for before the first can begin, the last one plays

/** Something that plays. */
export class Playback {
  private readonly gains: GainNode[] = [];
  private readonly sources: AudioBufferSourceNode[] = [];
  private readonly length: number;
  private readonly startedAt: number;
  private frame = 0;

  constructor(
    private readonly context: AudioContext,
    private readonly playing: Playing,
  ) {
    this.length = Math.max(...playing.voices.map((samples) => samples.length)) / RATE;
    playing.voices.forEach((samples, index) => {
      const buffer = context.createBuffer(1, Math.max(1, samples.length), RATE);
      buffer.copyToChannel(samples, 0);
      const gain = new GainNode(context, { gain: index === playing.heard ? 1 : 0 });
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(gain).connect(context.destination);
      this.gains.push(gain);
      this.sources.push(source);
      if (buffer.duration >= this.length) source.onended = () => this.stop();
    });
    this.startedAt = context.currentTime;
    for (const source of this.sources) source.start(this.startedAt, playing.from);
    this.tick();
  }

  /** Seconds from the start of the voices. */
  get time(): number {
    const passed = this.context.currentTime - this.startedAt;
    return Math.min(this.playing.from + passed, this.length);
  }

  /** Let another voice be heard, at the same place. */
  hear(voice: number): void {
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
    this.playing.onStop(time >= this.length ? 0 : time);
  }

  private tick(): void {
    this.playing.onTime(this.time);
    this.frame = requestAnimationFrame(() => this.tick());
  }
}

/**
 * Play, from a click or a key: browsers let no page make a sound before one.
 *
 * Null where no sound can be made, or something else was to be played before this could begin.
 */
export async function play(playing: Playing): Promise<Playback | null> {
  current?.stop();
  turn += 1;
  const mine = turn;
  context ??= new AudioContext({ sampleRate: RATE });
  const sounds = context.state === "running" || (await starts(context));
  if (mine !== turn) return null;
  if (!sounds) {
    playing.onSilence(NO_SOUND);
    return null;
  }
  current = new Playback(context, playing);
  return current;
}

/** Whether it does; Firefox waits for ever where there is nothing to play on. */
function starts(context: AudioContext): Promise<boolean> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(false), STARTED_WITHIN_MS);
    context.resume().then(
      () => resolve(true),
      () => resolve(false),
    );
  });
}
