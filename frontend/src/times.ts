/** Times in seconds: how they are written, read, and kept within a track. */

/** What the model hears of a track. */
export const WINDOW_S = 16;

/** Where a window may start is told, drawn and sent in hundredths of a second. */
const STEPS_PER_S = 100;

/** `83.5` as `1:23.50`; hours only where there are any. */
export function formatTime(seconds: number, decimals = 2): string {
  const scale = 10 ** decimals;
  const units = Math.round(Math.max(0, seconds) * scale);
  const whole = Math.floor(units / scale);
  const fraction = decimals ? `.${String(units % scale).padStart(decimals, "0")}` : "";
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const start = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : String(minutes);
  return `${start}:${String(whole % 60).padStart(2, "0")}${fraction}`;
}

/** Seconds of `83.5`, `1:23.5` or `1:02:03`; null for anything else. */
export function parseTime(text: string): number | null {
  const parts = text.trim().replace(",", ".").split(":");
  const last = parts.pop() ?? "";
  if (parts.length > 2 || !/^\d+(\.\d*)?$|^\.\d+$/.test(last)) return null;
  if (!parts.every((part) => /^\d+$/.test(part))) return null;
  return [...parts, last].reduce((total, part) => total * 60 + Number(part), 0);
}

/** The nearest start of a window that lies within a track of that length, if there is one. */
export function fitStart(start: number, duration: number | null): number {
  const latest = duration === null ? Number.POSITIVE_INFINITY : Math.max(0, duration - WINDOW_S);
  const steps = Math.round(start * STEPS_PER_S);
  return Math.max(0, Math.min(steps, Math.floor(latest * STEPS_PER_S))) / STEPS_PER_S;
}

/** `to 0:26.00`, or where the track ends. */
export function endText(start: number, duration: number | null): string {
  const end = Math.min(start + WINDOW_S, duration ?? Number.POSITIVE_INFINITY);
  return `to ${formatTime(end)}`;
}

/** `0:10.00 to 0:26.00` */
export function windowText(start: number, duration: number | null): string {
  return `${formatTime(start)} ${endText(start, duration)}`;
}

/** `14:05`, and the day before it where that is not today; as the browser's language writes it. */
export function formatMoment(moment: Date, now: Date): string {
  const today = moment.toDateString() === now.toDateString();
  return moment.toLocaleString([], {
    timeStyle: "short",
    ...(today ? {} : { dateStyle: "medium" }),
  });
}

/** `in 40 seconds`, for what is only roughly known. */
export function roughly(seconds: number): string {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}
