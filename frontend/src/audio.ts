/** Decodes audio to the model's input format: mono, 24,000 samples per second. */

export const RATE = 24_000;

/** Longer tracks get no waveform: decoding an hour of audio exceeds the memory of a phone. */
export const MAX_DRAWN_S = 20 * 60;

const METADATA_TIMEOUT_MS = 5_000;

/** Number of waveform peaks per second of audio. */
export const PEAKS_PER_S = 200;

/**
 * Decodes a file in any format that the browser supports.
 *
 * @throws DOMException if the browser cannot decode the file.
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

/** Returns the duration in seconds from the file's metadata; null if the browser cannot read it. */
export function metadataDuration(file: Blob): Promise<number | null> {
  const audio = new Audio();
  const url = URL.createObjectURL(file);
  return new Promise<number | null>((resolve) => {
    audio.onloadedmetadata = () => resolve(audio.duration);
    audio.onerror = () => resolve(null);
    setTimeout(() => resolve(null), METADATA_TIMEOUT_MS); // a hidden tab may defer loading
    audio.preload = "metadata";
    audio.src = url;
  }).finally(() => URL.revokeObjectURL(url));
}

/** Returns the largest absolute value in each interval of 1 / PEAKS_PER_S seconds. */
export function peaksOf(samples: Float32Array): Float32Array<ArrayBuffer> {
  const samplesPerPeak = RATE / PEAKS_PER_S;
  const peaks = new Float32Array(Math.ceil(samples.length / samplesPerPeak));
  for (let index = 0; index < samples.length; index++) {
    const value = Math.abs(samples[index] ?? 0);
    const peak = Math.floor(index / samplesPerPeak);
    if (value > (peaks[peak] ?? 0)) peaks[peak] = value;
  }
  return peaks;
}

/** Returns the samples of a window: `seconds` from `start`, or up to the end of the track. */
export function cut(
  samples: Float32Array<ArrayBuffer>,
  start: number,
  seconds: number,
): Float32Array<ArrayBuffer> {
  return samples.subarray(Math.round(start * RATE), Math.round((start + seconds) * RATE));
}
