/** Client of the MusicLab HTTP API. */

/** A job's status as returned by the API. */
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

/** The final event of a deleted job. */
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
  /** Start of the window, in seconds. */
  start: number;
}

/** Identifies a track; also the name of its form field. */
export type Field = "track1" | "track2";

/** The API returned an error; `message` is its `detail`. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    /** Seconds to wait before repeating the request; null if unspecified. */
    readonly retryAfter: number | null,
  ) {
    super(message);
  }
}

/** The API could not be reached. */
export class NetworkError extends Error {
  constructor() {
    super("MusicLab cannot be reached.");
  }
}

const PROXY_UNAVAILABLE = "unavailable"; // error code that nginx returns while the API is down
const API_KEY_ITEM = "musiclab-api-key";
let apiKey = storedApiKey();
const BASE = String(import.meta.env.VITE_API_URL ?? "").replace(/\/$/, "");

/** Uses the key until the tab is closed, or until a reload if session storage is unavailable. */
export function useApiKey(key: string): void {
  apiKey = key;
  try {
    sessionStorage.setItem(API_KEY_ITEM, key);
  } catch {
    // Session storage is unavailable, for example because cookies are blocked.
  }
}

function storedApiKey(): string {
  try {
    return sessionStorage.getItem(API_KEY_ITEM) ?? "";
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
  const response = await call(`/api/download/${jobId}`);
  try {
    return await response.blob();
  } catch {
    throw new NetworkError(); // the connection broke during the download
  }
}

/** Deletes a job and its music; cancels the job if it is not finished. */
export async function remove(jobId: string): Promise<void> {
  try {
    await call(`/api/cleanup/${jobId}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
}

/**
 * Checks a file's name and size without uploading it.
 *
 * @throws ApiError if the API would reject the file.
 */
export async function checkName(field: Field, file: File): Promise<void> {
  const query = new URLSearchParams({ name: file.name, size: String(file.size) });
  await call(`/api/check/${field}?${query}`);
}

/** Uploads a file for probing; returns its duration in seconds, or null if unknown. */
export async function checkContent(field: Field, file: File): Promise<number | null> {
  const body = new FormData();
  body.append(field, file, file.name);
  return (await (await call(`/api/check/${field}`, { method: "POST", body })).json()).duration_s;
}

/**
 * Submits a job and returns its id. Repeated requests with the same idempotency key return the
 * same job.
 *
 * `signal` is ignored once the upload is complete: the job may exist by then, and the caller needs
 * its id.
 *
 * Uses XMLHttpRequest because fetch does not report upload progress.
 */
export function generate(
  parts: readonly [Part, Part],
  key: string,
  onSent: (fraction: number) => void,
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
  for (const [name, value] of Object.entries(authHeaders())) request.setRequestHeader(name, value);
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
        reject(new NetworkError()); // the response did not come from MusicLab
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
  let response: Response;
  try {
    response = await fetch(BASE + path, { ...options, headers: authHeaders() });
  } catch {
    throw new NetworkError();
  }
  if (response.ok) return response;
  throw responseError(response.status, await response.text(), response.headers.get("Retry-After"));
}

function authHeaders(): Record<string, string> {
  return apiKey ? { "X-API-Key": apiKey } : ({} as Record<string, string>);
}

function responseError(
  status: number,
  text: string,
  retryAfter: string | null,
): ApiError | NetworkError {
  try {
    const { detail, code } = JSON.parse(text);
    if (typeof detail !== "string" || code === PROXY_UNAVAILABLE) return new NetworkError();
    return new ApiError(detail, status, code, retryAfter === null ? null : Number(retryAfter));
  } catch {
    return new NetworkError(); // not JSON: a proxy's own error page
  }
}
