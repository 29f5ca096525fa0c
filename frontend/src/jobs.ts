/** Submits the jobs of this browser, follows them, and removes deleted ones. */

import { ApiError, type Deleted, generate, health, NetworkError, remove, type Status } from "./api";
import type { Files } from "./files";
import { FINAL, follow } from "./follow";
import { type Chosen, type Job, newId, type Store, type Trouble } from "./store";

const RETRY_DELAY_MS = 3_000;
const MAX_ATTEMPTS = 3;

/** The part of a job's state that is lost when the page is closed. */
export interface LiveState {
  /** Fraction uploaded, 0 to 1; null unless this page is uploading the job. */
  sent: number | null;
  /** False if the last request could not reach MusicLab. */
  reachable: boolean;
  stop: () => void;
}

type Tracks = readonly [Chosen, Chosen];

export function isDone(job: Job): boolean {
  return job.status !== null && FINAL.includes(job.status.status);
}

export class Jobs {
  private readonly jobs = new Map<string, Job>();
  private readonly live = new Map<string, LiveState>();
  /** Keys that have been in the store; if one is missing later, another tab removed the job. */
  private readonly stored = new Set<string>();
  private shownKey: string | null = null;
  private writes: Promise<unknown> = Promise.resolve();

  /** `onChange` is called on each change; `onRemoved` if a job expired or was removed elsewhere. */
  constructor(
    private readonly store: Store,
    private readonly files: Files,
    private readonly onChange: () => void,
    private readonly onRemoved: (job: Job) => void,
  ) {}

  /** Resumes all stored jobs. Shows the job with this id, or an unfinished job if null. */
  async open(jobId: string | null): Promise<void> {
    for (const job of (await this.store.jobs()) ?? []) {
      this.jobs.set(job.key, job);
      this.stored.add(job.key);
    }
    const open = this.list().find((job) => !isDone(job));
    this.shownKey = jobId === null ? (open?.key ?? null) : await this.keyOf(jobId);
    for (const job of this.list()) this.resume(job);
    this.store.onChange(() => this.refresh());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.checkExpired();
    });
    this.onChange();
  }

  /** All jobs, newest first. */
  list(): Job[] {
    return [...this.jobs.values()].sort((one, other) => other.createdAt - one.createdAt);
  }

  get shown(): Job | null {
    return this.jobs.get(this.shownKey ?? "") ?? null;
  }

  /** The live state of the job that is shown. */
  get shownLive(): LiveState {
    return this.live.get(this.shownKey ?? "") ?? { sent: null, reachable: true, stop: () => {} };
  }

  /** Shows the job with this id, even if it was submitted from another browser. */
  async showId(jobId: string): Promise<void> {
    this.show(await this.keyOf(jobId));
  }

  show(key: string): void {
    const before = this.shown;
    this.shownKey = key;
    for (const job of [before, this.shown]) if (job) this.resume(job);
    this.onChange();
  }

  /** Starts a job for two tracks. */
  async start(tracks: Tracks): Promise<void> {
    const files = new Map<string, Blob>();
    for (const { fileId } of tracks) {
      const file = await this.files.get(fileId);
      if (file) files.set(fileId, file);
    }
    const job = newJob({ tracks });
    this.jobs.set(job.key, job);
    this.resume(job); // first, so that this tab uploads it: another one may lack the API key
    await this.save(job, () => this.store.addJob(job, files));
    this.show(job.key);
  }

  /** Resubmits a job that was not accepted. */
  async retry(job: Job): Promise<void> {
    const saved = this.change(job.key, { trouble: null });
    this.resume(this.jobs.get(job.key) ?? null); // before another tab sees the change
    await saved;
  }

  /** Cancels a job, or deletes its music. */
  async discard(job: Job): Promise<void> {
    if (job.jobId !== null) await remove(job.jobId);
    await this.forget(job.key);
  }

  /** Submits the job, or follows it if it has been accepted. */
  private resume(job: Job | null): void {
    if (job === null) return;
    const { key, jobId } = job;
    if (jobId === null) {
      if (job.trouble === null && !this.live.has(key)) this.send(job);
      return;
    }
    this.live.get(key)?.stop();
    if (isDone(job) && this.live.has(key)) return; // already up to date
    const live: LiveState = { sent: null, reachable: true, stop: () => {} };
    this.live.set(key, live);
    live.stop = follow(jobId, key === this.shownKey, {
      onStatus: (update) => this.applyUpdate(key, update),
      onReachable: (reachable) => {
        if (live.reachable === reachable) return;
        live.reachable = reachable;
        this.onChange();
      },
    });
  }

  private async applyUpdate(key: string, update: Status | Deleted): Promise<void> {
    const job = this.jobs.get(key);
    if (!job) return;
    if (update.status === "deleted") {
      await this.forget(key);
      this.onRemoved(job);
    } else {
      await this.change(key, { status: update });
    }
  }

  private send(job: Job): void {
    const abort = new AbortController();
    const live: LiveState = { sent: null, reachable: true, stop: () => abort.abort() };
    this.live.set(job.key, live);
    // Only one tab uploads; if it is closed, another one takes over.
    withLock(`musiclab-${job.key}`, () => this.upload(job.key, live, abort.signal))
      .catch((error) => this.change(job.key, { trouble: unexpectedTrouble(error) }))
      .finally(() => {
        if (this.live.get(job.key) === live) this.live.delete(job.key);
        this.resume(this.jobs.get(job.key) ?? null);
      });
  }

  private async upload(key: string, live: LiveState, signal: AbortSignal): Promise<void> {
    await this.refresh();
    const job = this.jobs.get(key);
    if (!job?.tracks || job.jobId !== null || job.trouble !== null || signal.aborted) return;
    const [first, second] = await Promise.all(
      job.tracks.map(({ fileId }) => this.files.get(fileId)),
    );
    if (!first || !second) {
      const sentence = "The upload was interrupted, and this browser no longer has the tracks.";
      await this.change(key, { trouble: { code: "lost", sentence, notBefore: Infinity } });
      return;
    }
    const [one, other] = job.tracks;
    const parts = [
      { file: first, name: one.name, start: one.start },
      { file: second, name: other.name, start: other.start },
    ] as const;
    const onSent = (fraction: number) => {
      live.sent = fraction;
      live.reachable = true;
      this.onChange();
    };
    for (let attempts = 1; !signal.aborted; ) {
      onSent(0);
      try {
        const jobId = await generate(parts, key, onSent, signal);
        // The job may have been cancelled while MusicLab accepted it.
        if ((await this.change(key, { jobId })) === null) await remove(jobId);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const trouble = troubleOf(error, attempts >= MAX_ATTEMPTS);
        if (trouble) {
          await this.change(key, { trouble });
          return;
        }
      }
      live.reachable = false;
      this.onChange();
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
      // A failed attempt counts only if MusicLab is reachable, so that outages use up no attempts.
      if (await isReachable()) attempts += 1;
    }
  }

  private async change(key: string, changed: Partial<Job>): Promise<Job | null> {
    const job = this.jobs.get(key);
    if (!job) return null;
    const next = { ...job, ...changed };
    this.jobs.set(key, next);
    this.onChange();
    await this.save(next);
    return next;
  }

  private async forget(key: string): Promise<void> {
    this.drop(key);
    this.onChange();
    await this.write(() => this.store.deleteJob(key));
  }

  private drop(key: string): void {
    this.live.get(key)?.stop();
    this.live.delete(key);
    this.jobs.delete(key);
    if (this.shownKey === key) this.shownKey = null;
  }

  /** Loads the changes made by other tabs. */
  private async refresh(): Promise<void> {
    let writes: Promise<unknown>;
    let stored: Job[] | null;
    do {
      writes = this.writes;
      await writes;
      stored = await this.store.jobs();
    } while (writes !== this.writes); // this tab wrote meanwhile: read again
    if (stored === null) return;
    const storedByKey = new Map(stored.map((job) => [job.key, job]));
    for (const key of this.jobs.keys()) {
      if (storedByKey.has(key) || !this.stored.has(key)) continue;
      const job = this.jobs.get(key);
      this.drop(key);
      if (job) this.onRemoved(job);
    }
    for (const job of storedByKey.values()) {
      this.stored.add(job.key);
      const before = this.jobs.get(job.key);
      this.jobs.set(job.key, { ...job, status: newerStatus(before?.status ?? null, job.status) });
      if (before?.jobId !== job.jobId || before?.trouble !== job.trouble) this.resume(job);
    }
    this.onChange();
  }

  private checkExpired(): void {
    for (const job of this.list()) {
      const expires = job.status?.expires_at;
      if (!expires || Date.parse(expires) > Date.now()) continue;
      this.live.delete(job.key);
      this.resume(job);
    }
  }

  /** Returns the key of the job with this API id; adds the job if this browser does not have it. */
  private async keyOf(jobId: string): Promise<string> {
    const existing = this.list().find((job) => job.jobId === jobId);
    const job = existing ?? newJob({ jobId });
    this.jobs.set(job.key, job);
    if (!existing) await this.save(job);
    return job.key;
  }

  private save(job: Job, put = () => this.store.saveJob(job)): Promise<unknown> {
    return this.write(async () => {
      if (await put()) this.stored.add(job.key);
    });
  }

  /** Serializes writes, so that a pending save cannot restore a deleted job. */
  private write(change: () => Promise<unknown>): Promise<unknown> {
    this.writes = this.writes.then(change);
    return this.writes;
  }
}

function newJob(fields: Partial<Job>): Job {
  const empty = { jobId: null, tracks: null, trouble: null, status: null };
  return { key: newId(), createdAt: Date.now(), ...empty, ...fields };
}

/** Returns the more recent of two statuses received by different tabs. */
function newerStatus(one: Status | null, other: Status | null): Status | null {
  if (one === null || other === null) return one ?? other;
  if (FINAL.includes(one.status)) return one;
  return other.progress >= one.progress ? other : one;
}

/** Returns null if the upload should be retried automatically. */
function troubleOf(error: unknown, isLastAttempt: boolean): Trouble | null {
  if (error instanceof ApiError) {
    const notBefore = Date.now() + 1000 * (error.retryAfter ?? 0);
    return { code: error.code, sentence: error.message, notBefore };
  }
  if (!(error instanceof NetworkError)) return unexpectedTrouble(error);
  if (!isLastAttempt) return null;
  const sentence = `The upload was interrupted ${MAX_ATTEMPTS} times.`;
  return { code: "broke_off", sentence, notBefore: 0 };
}

function unexpectedTrouble(error: unknown): Trouble {
  return { code: "unexpected", sentence: `The upload failed: ${error}`, notBefore: 0 };
}

async function isReachable(): Promise<boolean> {
  try {
    await health();
    return true;
  } catch {
    return false;
  }
}

/** Runs the work in one tab at a time; without a lock if the Web Locks API is unavailable. */
async function withLock(name: string, work: () => Promise<void>): Promise<void> {
  let started = false;
  const begin = () => {
    started = true;
    return work();
  };
  try {
    if (navigator.locks) return await navigator.locks.request(name, begin);
  } catch (error) {
    if (started) throw error;
  }
  await work();
}
