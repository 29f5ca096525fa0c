/** The jobs of this browser: sends them, follows them, and forgets them when they are gone. */

import { ApiError, type Deleted, generate, health, NetworkError, remove, type Status } from "./api";
import type { Files } from "./files";
import { FINAL, follow } from "./follow";
import { type Chosen, type Job, newId, type Store, type Trouble } from "./store";

const AGAIN_MS = 3_000;
const TRIES = 3;

/** What is known of a job for as long as the page is open. */
export interface Live {
  /** 0 to 1; null while this page does not send it. */
  sent: number | null;
  /** Whether MusicLab could be reached the last time. */
  reached: boolean;
  stop: () => void;
}

type Tracks = readonly [Chosen, Chosen];

export function isDone(job: Job): boolean {
  return job.status !== null && FINAL.includes(job.status.status);
}

export class Jobs {
  private readonly jobs = new Map<string, Job>();
  private readonly live = new Map<string, Live>();
  private readonly kept = new Set<string>(); // by the store: what it lacks then, another tab removed
  private shownKey: string | null = null;
  private writes: Promise<unknown> = Promise.resolve();

  /** `onChange` is called after every change; `onGone` for a job that somebody else removed. */
  constructor(
    private readonly store: Store,
    private readonly files: Files,
    private readonly onChange: () => void,
    private readonly onGone: (job: Job) => void,
  ) {}

  /** Take up all jobs where they were left, and show the one of that id, or else one not done. */
  async open(jobId: string | null): Promise<void> {
    for (const job of (await this.store.jobs()) ?? []) {
      this.jobs.set(job.key, job);
      this.kept.add(job.key);
    }
    const open = this.list().find((job) => !isDone(job));
    this.shownKey = jobId === null ? (open?.key ?? null) : await this.keyOf(jobId);
    for (const job of this.list()) this.take(job);
    this.store.onChange(() => this.refresh());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.lookForExpired();
    });
    this.onChange();
  }

  /** The newest first. */
  list(): Job[] {
    return [...this.jobs.values()].sort((one, other) => other.createdAt - one.createdAt);
  }

  get shown(): Job | null {
    return this.jobs.get(this.shownKey ?? "") ?? null;
  }

  /** What is known of the job that is shown. */
  get shownLive(): Live {
    return this.live.get(this.shownKey ?? "") ?? { sent: null, reached: true, stop: () => {} };
  }

  /** Show the job of that id, also if it is another browser's. */
  async showId(jobId: string): Promise<void> {
    this.show(await this.keyOf(jobId));
  }

  show(key: string): void {
    const before = this.shown;
    this.shownKey = key;
    for (const job of [before, this.shown]) if (job) this.take(job);
    this.onChange();
  }

  /** Make music of two tracks. */
  async start(tracks: Tracks): Promise<void> {
    const files = new Map<string, Blob>();
    for (const { fileId } of tracks) {
      const file = await this.files.get(fileId);
      if (file) files.set(fileId, file);
    }
    const job = newJob({ tracks });
    this.jobs.set(job.key, job);
    this.take(job); // before another tab knows of it, which may lack the API key
    await this.keep(job, () => this.store.addJob(job, files));
    this.show(job.key);
  }

  /** Send a job anew that was not accepted. */
  async retry(job: Job): Promise<void> {
    const kept = this.change(job.key, { trouble: null });
    this.take(this.jobs.get(job.key) ?? null); // before another tab knows of it
    await kept;
  }

  /** Cancel a job, or delete its music. */
  async discard(job: Job): Promise<void> {
    if (job.jobId !== null) await remove(job.jobId);
    await this.forget(job.key);
  }

  /** Follow or send the job, whichever is next. */
  private take(job: Job | null): void {
    if (job === null) return;
    const { key, jobId } = job;
    if (jobId === null) {
      if (job.trouble === null && !this.live.has(key)) this.send(job);
      return;
    }
    this.live.get(key)?.stop();
    if (isDone(job) && this.live.has(key)) return; // and was looked at
    const live: Live = { sent: null, reached: true, stop: () => {} };
    this.live.set(key, live);
    live.stop = follow(jobId, key === this.shownKey, {
      onStatus: (told) => this.told(key, told),
      onReach: (reached) => {
        if (live.reached === reached) return;
        live.reached = reached;
        this.onChange();
      },
    });
  }

  private async told(key: string, told: Status | Deleted): Promise<void> {
    const job = this.jobs.get(key);
    if (!job) return;
    if (told.status === "deleted") {
      await this.forget(key);
      this.onGone(job);
    } else {
      await this.change(key, { status: told });
    }
  }

  private send(job: Job): void {
    const abort = new AbortController();
    const live: Live = { sent: null, reached: true, stop: () => abort.abort() };
    this.live.set(job.key, live);
    // One tab sends; should it be closed meanwhile, another one does.
    exclusively(`musiclab-${job.key}`, () => this.upload(job.key, live, abort.signal))
      .catch((error) => this.change(job.key, { trouble: unexpected(error) }))
      .finally(() => {
        if (this.live.get(job.key) === live) this.live.delete(job.key);
        this.take(this.jobs.get(job.key) ?? null);
      });
  }

  private async upload(key: string, live: Live, signal: AbortSignal): Promise<void> {
    await this.refresh();
    const job = this.jobs.get(key);
    if (!job?.tracks || job.jobId !== null || job.trouble !== null || signal.aborted) return;
    const [first, second] = await Promise.all(
      job.tracks.map(({ fileId }) => this.files.get(fileId)),
    );
    if (!first || !second) {
      const sentence = "The upload broke off, and this browser has the tracks no more.";
      await this.change(key, { trouble: { code: "lost", sentence, notBefore: Infinity } });
      return;
    }
    const [one, other] = job.tracks;
    const parts = [
      { file: first, name: one.name, start: one.start },
      { file: second, name: other.name, start: other.start },
    ] as const;
    const onSent = (share: number) => {
      live.sent = share;
      live.reached = true;
      this.onChange();
    };
    for (let tries = 1; !signal.aborted; ) {
      onSent(0);
      try {
        const jobId = await generate(parts, key, onSent, signal);
        // It may have been cancelled while MusicLab took it.
        if ((await this.change(key, { jobId })) === null) await remove(jobId);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const trouble = troubleOf(error, tries >= TRIES);
        if (trouble) {
          await this.change(key, { trouble });
          return;
        }
      }
      live.reached = false;
      this.onChange();
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      // Tries count only while MusicLab is there: else it is no fault of the upload.
      if (await isReachable()) tries += 1;
    }
  }

  private async change(key: string, changed: Partial<Job>): Promise<Job | null> {
    const job = this.jobs.get(key);
    if (!job) return null;
    const next = { ...job, ...changed };
    this.jobs.set(key, next);
    this.onChange();
    await this.keep(next);
    return next;
  }

  private async forget(key: string): Promise<void> {
    this.drop(key);
    this.onChange();
    await this.write(() => this.store.forgetJob(key));
  }

  private drop(key: string): void {
    this.live.get(key)?.stop();
    this.live.delete(key);
    this.jobs.delete(key);
    if (this.shownKey === key) this.shownKey = null;
  }

  /** Another tab has changed something. */
  private async refresh(): Promise<void> {
    let writes: Promise<unknown>;
    let stored: Job[] | null;
    do {
      writes = this.writes;
      await writes;
      stored = await this.store.jobs();
    } while (writes !== this.writes); // else what was read may be older than what is known
    if (stored === null) return;
    const kept = new Map(stored.map((job) => [job.key, job]));
    for (const key of this.jobs.keys()) {
      if (kept.has(key) || !this.kept.has(key)) continue;
      const job = this.jobs.get(key);
      this.drop(key);
      if (job) this.onGone(job);
    }
    for (const job of kept.values()) {
      this.kept.add(job.key);
      const before = this.jobs.get(job.key);
      this.jobs.set(job.key, { ...job, status: later(before?.status ?? null, job.status) });
      if (before?.jobId !== job.jobId || before?.trouble !== job.trouble) this.take(job);
    }
    this.onChange();
  }

  private lookForExpired(): void {
    for (const job of this.list()) {
      const expires = job.status?.expires_at;
      if (!expires || Date.parse(expires) > Date.now()) continue;
      this.live.delete(job.key);
      this.take(job);
    }
  }

  /** Of the job of that id, which this browser need not have known, as in an address. */
  private async keyOf(jobId: string): Promise<string> {
    const known = this.list().find((job) => job.jobId === jobId);
    const job = known ?? newJob({ jobId });
    this.jobs.set(job.key, job);
    if (!known) await this.keep(job);
    return job.key;
  }

  private keep(job: Job, put = () => this.store.keepJob(job)): Promise<unknown> {
    return this.write(async () => {
      if (await put()) this.kept.add(job.key);
    });
  }

  /** One after the other: a job that is forgotten is not kept once more. */
  private write(change: () => Promise<unknown>): Promise<unknown> {
    this.writes = this.writes.then(change);
    return this.writes;
  }
}

function newJob(known: Partial<Job>): Job {
  const empty = { jobId: null, tracks: null, trouble: null, status: null };
  return { key: newId(), createdAt: Date.now(), ...empty, ...known };
}

/** Of what two tabs have been told. */
function later(one: Status | null, other: Status | null): Status | null {
  if (one === null || other === null) return one ?? other;
  if (FINAL.includes(one.status)) return one;
  return other.progress >= one.progress ? other : one;
}

/** Null for what may be over by itself. */
function troubleOf(error: unknown, isLastTry: boolean): Trouble | null {
  if (error instanceof ApiError) {
    const notBefore = Date.now() + 1000 * (error.retryAfter ?? 0);
    return { code: error.code, sentence: error.message, notBefore };
  }
  if (!(error instanceof NetworkError)) return unexpected(error);
  if (!isLastTry) return null;
  const sentence = `The upload broke off ${TRIES} times.`;
  return { code: "broke_off", sentence, notBefore: 0 };
}

function unexpected(error: unknown): Trouble {
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

/** In one tab at a time, where the browser may tell them apart: on secure origins, with cookies. */
async function exclusively(name: string, work: () => Promise<void>): Promise<void> {
  let begun = false;
  const begin = () => {
    begun = true;
    return work();
  };
  try {
    if (navigator.locks) return await navigator.locks.request(name, begin);
  } catch (error) {
    if (begun) throw error;
  }
  await work();
}
