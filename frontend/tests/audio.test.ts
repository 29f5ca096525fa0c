import { expect, test } from "vitest";
import { cut, PEAKS_PER_S, peaksOf, RATE } from "../src/audio";

test("each peak is the largest absolute value in its interval", () => {
  const samples = new Float32Array(RATE + 1);
  samples[0] = 0.25;
  samples[RATE / PEAKS_PER_S - 1] = -0.5;
  samples[RATE - 1] = 0.75;
  samples[RATE] = 1;
  const peaks = peaksOf(samples);
  expect(peaks).toHaveLength(PEAKS_PER_S + 1);
  expect([peaks[0], peaks[1], peaks[PEAKS_PER_S - 1], peaks[PEAKS_PER_S]]).toEqual([
    0.5, 0, 0.75, 1,
  ]);
});

test("a window begins at its start time and ends no later than its track", () => {
  const samples = Float32Array.from({ length: 2 * RATE }, (_, index) => index);
  const window = cut(samples, 0.5, 1);
  expect([window.length, window[0]]).toEqual([RATE, RATE / 2]);
  expect(cut(samples, 1.5, 16)).toHaveLength(RATE / 2);
});
