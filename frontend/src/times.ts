/** Formats, parses and clamps times, all in seconds. */

/** Length of a window. */
export const WINDOW_S = 16;

/** Window starts are rounded to hundredths of a second. */
const STEPS_PER_S = 100;

/** Formats `83.5` as `1:23.50`; hours are included only if needed. */
export function formatTime(seconds: number, decimals = 2): string {
  const scale = 10 ** decimals;
  const units = Math.round(Math.max(0, seconds) * scale);
  const whole = Math.floor(units / scale);
  const fraction = decimals ? `.${String(units % scale).padStart(decimals, "0")}` : "";
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const start = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : String(minutes);
  return `${start}:${String(whole % 60).padStart(2, "0")}${fraction}`;
}

/** Parses `83.5`, `1:23.5` or `1:02:03` to seconds; returns null for any other text. */
export function parseTime(text: string): number | null {
  const parts = text.trim().replace(",", ".").split(":");
  const last = parts.pop() ?? "";
  if (parts.length > 2 || !/^\d+(\.\d*)?$|^\.\d+$/.test(last)) return null;
  if (!parts.every((part) => /^\d+$/.test(part))) return null;
  return [...parts, last].reduce((total, part) => total * 60 + Number(part), 0);
}

/** Returns the nearest start for which the window fits in the track; 0 if the track is shorter. */
export function fitStart(start: number, duration: number | null): number {
  const latest = duration === null ? Number.POSITIVE_INFINITY : Math.max(0, duration - WINDOW_S);
  const steps = Math.round(start * STEPS_PER_S);
  return Math.max(0, Math.min(steps, Math.floor(latest * STEPS_PER_S))) / STEPS_PER_S;
}

/** Formats the end of the window as `to 0:26.00`; no later than the end of the track. */
export function endText(start: number, duration: number | null): string {
  const end = Math.min(start + WINDOW_S, duration ?? Number.POSITIVE_INFINITY);
  return `to ${formatTime(end)}`;
}

/** Formats the window as `0:10.00 to 0:26.00`. */
export function windowText(start: number, duration: number | null): string {
  return `${formatTime(start)} ${endText(start, duration)}`;
}

/** Formats a time in the browser's locale as `14:05`, preceded by the date if it is not today. */
export function formatMoment(moment: Date, now: Date): string {
  const isToday = moment.toDateString() === now.toDateString();
  return moment.toLocaleString([], {
    timeStyle: "short",
    ...(isToday ? {} : { dateStyle: "medium" }),
  });
}

/** Formats an estimate as `about 40 s` or `about 2 min`. */
export function formatEstimate(seconds: number): string {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}
