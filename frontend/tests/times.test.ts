import { describe, expect, test } from "vitest";
import {
  fitStart,
  formatEstimate,
  formatMoment,
  formatTime,
  parseTime,
  windowText,
} from "../src/times";

describe("formatTime", () => {
  test.each([
    [0, "0:00.00"],
    [83.5, "1:23.50"],
    [59.999, "1:00.00"],
    [3723, "1:02:03.00"],
  ])("formats %d s as %s", (seconds, text) => {
    expect(formatTime(seconds)).toBe(text);
  });

  test("formats without a fraction", () => {
    expect(formatTime(441.4, 0)).toBe("7:21");
  });
});

describe("parseTime", () => {
  test.each([
    ["83.5", 83.5],
    [" 1:23.5 ", 83.5],
    ["1:23,5", 83.5],
    ["1:02:03", 3723],
    [".5", 0.5],
    ["90:00", 5400],
  ])("parses %s", (text, seconds) => {
    expect(parseTime(text)).toBe(seconds);
  });

  test.each(["", "abc", "-1", "1:", ":30", "1:2:3:4", "1e3", "1.5:30", "Infinity"])(
    "rejects %j",
    (text) => {
      expect(parseTime(text)).toBeNull();
    },
  );

  test("parses the output of formatTime", () => {
    for (const seconds of [0, 0.01, 15.99, 60, 754.32, 3600, 7325.07]) {
      expect(parseTime(formatTime(seconds))).toBeCloseTo(seconds, 9);
    }
  });
});

describe("fitStart", () => {
  test.each([
    [10, 100, 10],
    [-5, 100, 0],
    [95, 100, 84],
    [Number.POSITIVE_INFINITY, 100, 84],
    [Number.NEGATIVE_INFINITY, 100, 0],
    [5, 9.3, 0],
    [5, null, 5],
    [1.23456, 100, 1.23],
  ])("%d in a track of %d s becomes %d", (start, duration, fitting) => {
    expect(fitStart(start, duration)).toBe(fitting);
  });

  test("keeps the window within the track", () => {
    for (const duration of [16, 16.004, 16.009, 221.0449, 3600.123]) {
      expect(fitStart(Number.POSITIVE_INFINITY, duration) + 16).toBeLessThanOrEqual(duration);
    }
  });
});

test("windowText ends the window no later than its track", () => {
  expect(windowText(10, 100)).toBe("0:10.00 to 0:26.00");
  expect(windowText(0, 9.3)).toBe("0:00.00 to 0:09.30");
  expect(windowText(10, null)).toBe("0:10.00 to 0:26.00");
});

test("formatEstimate formats an estimate", () => {
  expect([0.2, 12.4, 61, 600].map(formatEstimate)).toEqual([
    "about 1 s",
    "about 12 s",
    "about 1 min",
    "about 10 min",
  ]);
});

test("formatMoment includes the date only if it is not today", () => {
  const now = new Date(2026, 0, 2, 14, 5);
  const time = formatMoment(now, now);
  expect(time).toMatch(/05/);
  expect(time).not.toMatch(/2026/);
  const yesterday = formatMoment(new Date(2026, 0, 1, 14, 5), now);
  expect(yesterday).toMatch(/2026/);
  expect(yesterday).toContain(time);
});
