/** Sound as the model hears it: mono, 24,000 samples a second. */

export const RATE = 24_000;

/** Of a longer track no waveform is drawn: decoding an hour takes more than a phone has. */
export const LONGEST_DRAWN_S = 20 * 60;

const STATED_WITHIN_MS = 5_000;

/** Peaks of which a waveform is drawn, a second. */
export const PEAKS_PER_S = 200;

/**
 * The samples of a file in any format that this browser knows.
 *
 * @throws DOMException when it does not know it.
 */
export async function decode(file: Blob): Promise<Float32Array<ArrayBuffer>> {
  const context = new OfflineAudioContext(1, 1, RATE);
  const buffer = await context.decodeAudioData(await file.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let index = 0; index < mono.length; index++) {
      mono[index] = (mono[index] ?? 0) + (samples[index] ?? 0) / buffer.numberOfChannels;
    }
  }
  return mono;
}

/** Seconds, as the file itself says; null where this browser does not know it. */
export function statedLength(file: Blob): Promise<number | null> {
  const audio = new Audio();
  const url = URL.createObjectURL(file);
  return new Promise<number | null>((resolve) => {
    audio.onloadedmetadata = () => resolve(audio.duration);
    audio.onerror = () => resolve(null);
    setTimeout(() => resolve(null), STATED_WITHIN_MS); // a browser may put it off in a hidden tab
    audio.preload = "metadata";
    audio.src = url;
  }).finally(() => URL.revokeObjectURL(url));
}

/** The largest absolute value of every 1 / PEAKS_PER_S seconds. */
export function peaksOf(samples: Float32Array): Float32Array<ArrayBuffer> {
  const each = RATE / PEAKS_PER_S;
  const peaks = new Float32Array(Math.ceil(samples.length / each));
  for (let index = 0; index < samples.length; index++) {
    const value = Math.abs(samples[index] ?? 0);
    const peak = Math.floor(index / each);
    if (value > (peaks[peak] ?? 0)) peaks[peak] = value;
  }
  return peaks;
}

/** What the model hears of a track: `seconds` from `start` on, at most to its end. */
export function cut(
  samples: Float32Array<ArrayBuffer>,
  start: number,
  seconds: number,
): Float32Array<ArrayBuffer> {
  return samples.subarray(Math.round(start * RATE), Math.round((start + seconds) * RATE));
}
