/**
 * What this browser keeps: its jobs and their tracks, so that neither a reload nor another tab loses
 * one. Where it may keep nothing, as in some private windows, all is well until the page is closed.
 */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { Status } from "./api";

/** A track as it was chosen for a job. */
export interface Chosen {
  fileId: string;
  name: string;
  /** Seconds; null where this browser cannot tell. */
  duration: number | null;
  /** Seconds; where its window starts. */
  start: number;
}

export interface Trouble {
  code: string;
  sentence: string;
  /** Milliseconds since 1970; before that, trying again is of no use. */
  notBefore: number;
}

export interface Job {
  /** Ours, and the request's Idempotency-Key. */
  key: string;
  /** The API's, once it has accepted the job. */
  jobId: string | null;
  createdAt: number;
  /** Null for a job that another browser has made. */
  tracks: readonly [Chosen, Chosen] | null;
  /** Why it was not accepted. */
  trouble: Trouble | null;
  status: Status | null;
}

interface Schema extends DBSchema {
  jobs: { key: string; value: Job };
  /**
   * Not as Files: WebKit keeps none in a private window, and elsewhere they are empty as soon as
   * another is kept in their place or they are deleted.
   */
  files: { key: string; value: ArrayBuffer };
}

type Database = IDBPDatabase<Schema>;

const OPENED_WITHIN_MS = 3_000;
const ANSWERED_WITHIN_MS = 15_000; // a slow disk has taken two large tracks by then

/** A name that nothing else has; crypto.randomUUID is there on secure origins only. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Store {
  private readonly others = openChannel();

  private constructor(private database: Database | null) {}

  static async open(): Promise<Store> {
    try {
      const opening = openDB<Schema>("musiclab", 1, {
        upgrade: (database) => {
          database.createObjectStore("jobs", { keyPath: "key" });
          database.createObjectStore("files");
        },
      });
      return new Store(await within(OPENED_WITHIN_MS, opening));
    } catch {
      return new Store(null);
    }
  }

  /** Call back when another tab has changed something. */
  onChange(callback: () => void): void {
    if (this.others) this.others.onmessage = callback;
  }

  /** Null where nothing is kept, or can be read: browsers lose a database now and then. */
  async jobs(): Promise<Job[] | null> {
    return this.attempt((database) => database.getAll("jobs"));
  }

  async file(id: string): Promise<Blob | null> {
    const content = await this.attempt((database) => database.get("files", id));
    return content ? new Blob([content]) : null;
  }

  /**
   * Keep a new job and its tracks, or at least the job where there is no room for them.
   *
   * Returns whether the job is kept.
   */
  async addJob(job: Job, files: ReadonlyMap<string, Blob>): Promise<boolean> {
    const kept = await this.attempt(async (database) => {
      const contents = await Promise.all(
        Array.from(files, async ([id, file]) => [id, await file.arrayBuffer()] as const),
      );
      const change = database.transaction(["jobs", "files"], "readwrite");
      await Promise.all([
        change.objectStore("jobs").put(job),
        ...contents.map(([id, content]) => change.objectStore("files").put(content, id)),
        change.done,
      ]);
      return true;
    });
    if (!kept) return this.keepJob(job);
    this.others?.postMessage(null);
    return true;
  }

  /** Whether it is kept. */
  async keepJob(job: Job): Promise<boolean> {
    const kept = await this.attempt((database) => database.put("jobs", job));
    this.others?.postMessage(null);
    return kept !== null;
  }

  /** Forget a job, and files that no job needs any more. */
  async forgetJob(key: string): Promise<void> {
    await this.attempt(async (database) => {
      const change = database.transaction(["jobs", "files"], "readwrite");
      const [jobs, files] = [change.objectStore("jobs"), change.objectStore("files")];
      await jobs.delete(key);
      const left = await jobs.getAll();
      const needed = new Set(left.flatMap((job) => job.tracks?.map((track) => track.fileId)));
      for (const id of await files.getAllKeys()) {
        if (!needed.has(id)) await files.delete(id);
      }
      await change.done;
    });
    this.others?.postMessage(null);
  }

  /** Null where it did not work: a full disk costs the memory of a job, not the job. */
  private async attempt<T>(work: (database: Database) => Promise<T>): Promise<T | null> {
    if (this.database === null) return null;
    try {
      return await within(ANSWERED_WITHIN_MS, work(this.database));
    } catch (error) {
      console.warn("What this browser keeps is not to be had:", error);
      if (error instanceof Silent) this.database = null; // all that follows would wait as well
      return null;
    }
  }
}

class Silent extends Error {}

/** A database that a browser has lost may never answer. */
function within<T>(patienceMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const alarm = setTimeout(() => reject(new Silent("no answer")), patienceMs);
    work.then(resolve, reject).finally(() => clearTimeout(alarm));
  });
}

/** Null where other tabs may not be told, as with cookies blocked. */
function openChannel(): BroadcastChannel | null {
  try {
    return new BroadcastChannel("musiclab");
  } catch {
    return null;
  }
}
