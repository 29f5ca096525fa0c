/** MusicLab's API, and its refusals in its own words. */

/** What the API says of a job. */
export interface Status {
  job_id: string;
  status: "queued" | "running" | "completed" | "failed";
  progress: number;
  message: string;
  created_at: string;
  model_version: string | null;
  codec: "official" | "starter" | null;
  queue_position?: number;
  eta_seconds?: number | null;
  expires_at?: string | null;
  error_code?: string;
}

/** The last event of a job that somebody removed. */
export interface Deleted {
  job_id: string;
  status: "deleted";
}

export interface Health {
  reason: string;
  model_loaded: boolean;
  codec: "official" | "starter" | null;
  checkpoint: "trained" | "starter" | null;
}

export interface Part {
  file: Blob;
  name: string;
  /** Seconds; where the window starts. */
  start: number;
}

/** Which of both tracks; also the name of its field. */
export type Field = "track1" | "track2";

/** The API refused: `message` is its sentence. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    /** Seconds after which the same request may be taken. */
    readonly retryAfter: number | null,
  ) {
    super(message);
  }
}

/** Nothing answered. */
export class NetworkError extends Error {
  constructor() {
    super("MusicLab cannot be reached.");
  }
}

const PROXY_ALONE = "unavailable"; // what a proxy says in MusicLab's stead
const KEY = "musiclab-api-key";
let usedKey = keptKey();
const BASE = String(import.meta.env.VITE_API_URL ?? "").replace(/\/$/, "");

/** The key is kept for as long as this tab is open, or until a reload where nothing may be kept. */
export function useApiKey(key: string): void {
  usedKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // as with cookies blocked
  }
}

function keptKey(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function eventsUrl(jobId: string): string {
  return `${BASE}/api/events/${jobId}`;
}

export function downloadUrl(jobId: string): string {
  return `${BASE}/api/download/${jobId}`;
}

export async function status(jobId: string): Promise<Status> {
  return (await call(`/api/status/${jobId}`)).json();
}

export async function health(): Promise<Health> {
  return (await call("/health")).json();
}

export async function music(jobId: string): Promise<Blob> {
  const answer = await call(`/api/download/${jobId}`);
  try {
    return await answer.blob();
  } catch {
    throw new NetworkError(); // in the middle of it
  }
}

/** Remove a job and its music; one that is not done is cancelled. */
export async function remove(jobId: string): Promise<void> {
  try {
    await call(`/api/cleanup/${jobId}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

/** Refuses a file by its name and size, before it is looked at. */
export async function checkName(field: Field, file: File): Promise<void> {
  const query = new URLSearchParams({ name: file.name, size: String(file.size) });
  await call(`/api/check/${field}?${query}`);
}

/** Has the API look at a file; returns its length in seconds, where that is known. */
export async function checkContent(field: Field, file: File): Promise<number | null> {
  const body = new FormData();
  body.append(field, file, file.name);
  return (await (await call(`/api/check/${field}`, { method: "POST", body })).json()).duration_s;
}

/**
 * Start a job; returns its id. The same key gives the same job, however often it is sent.
 *
 * Once all is sent, `signal` is no longer heeded: there may be a job, and the caller has to know.
 *
 * Not with fetch, which does not tell how much of an upload has been sent.
 */
export function generate(
  parts: readonly [Part, Part],
  key: string,
  onSent: (share: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const body = new FormData();
  parts.forEach(({ file, name, start }, index) => {
    body.append(`track${index + 1}`, file, name);
    body.append(`start_time_${index + 1}`, String(start));
  });
  const request = new XMLHttpRequest();
  request.open("POST", `${BASE}/api/generate`);
  request.setRequestHeader("Idempotency-Key", key);
  for (const [name, value] of Object.entries(access())) request.setRequestHeader(name, value);
  let isSent = false;
  request.upload.onload = () => {
    isSent = true;
  };
  request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
  return new Promise((resolve, reject) => {
    request.onload = () => {
      const { status, responseText } = request;
      try {
        if (status === 202) resolve(JSON.parse(responseText).job_id);
        else reject(responseError(status, responseText, request.getResponseHeader("Retry-After")));
      } catch {
        reject(new NetworkError()); // this is not MusicLab's answer
      }
    };
    request.onerror = () => reject(new NetworkError());
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => {
      if (!isSent) request.abort();
    });
    request.send(body);
  });
}

async function call(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(BASE + path, { ...options, headers: access() });
  } catch {
    throw new NetworkError();
  }
  if (answer.ok) return answer;
  throw responseError(answer.status, await answer.text(), answer.headers.get("Retry-After"));
}

function access(): Record<string, string> {
  return usedKey ? { "X-API-Key": usedKey } : ({} as Record<string, string>);
}

function responseError(
  status: number,
  text: string,
  retryAfter: string | null,
): ApiError | NetworkError {
  try {
    const { detail, code } = JSON.parse(text);
    if (typeof detail !== "string" || code === PROXY_ALONE) return new NetworkError();
    return new ApiError(detail, status, code, retryAfter === null ? null : Number(retryAfter));
  } catch {
    return new NetworkError(); // a proxy that does not reach MusicLab says so in words of its own
  }
}
