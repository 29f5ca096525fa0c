/**
 * Stores jobs and their tracks in IndexedDB, so that they survive a reload and are shared by tabs.
 *
 * Without IndexedDB, for example in some private windows, they last until the page is closed.
 */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { Status } from "./api";

/** A track and window selected for a job. */
export interface Chosen {
  fileId: string;
  name: string;
  /** Seconds; null if unknown. */
  duration: number | null;
  /** Start of the window, in seconds. */
  start: number;
}

/** Why a job could not be submitted. */
export interface Trouble {
  code: string;
  sentence: string;
  /** Earliest time of a retry, in milliseconds since 1970. */
  notBefore: number;
}

export interface Job {
  /** Client-side id; also sent as the Idempotency-Key. */
  key: string;
  /** Id assigned by the API; null until the job is accepted. */
  jobId: string | null;
  createdAt: number;
  /** Null for a job submitted from another browser. */
  tracks: readonly [Chosen, Chosen] | null;
  /** Null unless submission failed. */
  trouble: Trouble | null;
  status: Status | null;
}

interface Schema extends DBSchema {
  jobs: { key: string; value: Job };
  /**
   * ArrayBuffers rather than Files: WebKit cannot store Files in a private window, and in other
   * browsers a stored File becomes empty once it is overwritten or deleted.
   */
  files: { key: string; value: ArrayBuffer };
}

type Database = IDBPDatabase<Schema>;

const OPEN_TIMEOUT_MS = 3_000;
const OPERATION_TIMEOUT_MS = 15_000; // enough for a slow disk to write two large tracks

/** Returns a random id; crypto.randomUUID is available on secure origins only. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Store {
  private readonly channel = openChannel();

  private constructor(private database: Database | null) {}

  static async open(): Promise<Store> {
    try {
      const opening = openDB<Schema>("musiclab", 1, {
        upgrade: (database) => {
          database.createObjectStore("jobs", { keyPath: "key" });
          database.createObjectStore("files");
        },
      });
      return new Store(await withTimeout(OPEN_TIMEOUT_MS, opening));
    } catch {
      return new Store(null);
    }
  }

  /** Registers a callback for changes made by other tabs. */
  onChange(callback: () => void): void {
    if (this.channel) this.channel.onmessage = callback;
  }

  /** Returns null if the database is unavailable or cannot be read. */
  async jobs(): Promise<Job[] | null> {
    return this.attempt((database) => database.getAll("jobs"));
  }

  async file(id: string): Promise<Blob | null> {
    const content = await this.attempt((database) => database.get("files", id));
    return content ? new Blob([content]) : null;
  }

  /**
   * Stores a new job and its tracks; if that fails, for example for lack of space, only the job.
   *
   * Returns whether the job was stored.
   */
  async addJob(job: Job, files: ReadonlyMap<string, Blob>): Promise<boolean> {
    const stored = await this.attempt(async (database) => {
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
    if (!stored) return this.saveJob(job);
    this.channel?.postMessage(null);
    return true;
  }

  /** Returns whether the job was stored. */
  async saveJob(job: Job): Promise<boolean> {
    const stored = await this.attempt((database) => database.put("jobs", job));
    this.channel?.postMessage(null);
    return stored !== null;
  }

  /** Deletes a job, and files that no other job uses. */
  async deleteJob(key: string): Promise<void> {
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
    this.channel?.postMessage(null);
  }

  /** Returns null if the operation fails: without storage, jobs still run. */
  private async attempt<T>(work: (database: Database) => Promise<T>): Promise<T | null> {
    if (this.database === null) return null;
    try {
      return await withTimeout(OPERATION_TIMEOUT_MS, work(this.database));
    } catch (error) {
      console.warn("Browser storage is unavailable:", error);
      // Later operations would time out as well.
      if (error instanceof DatabaseTimeout) this.database = null;
      return null;
    }
  }
}

class DatabaseTimeout extends Error {}

/** Rejects with DatabaseTimeout if the work takes too long: a broken database may never respond. */
function withTimeout<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new DatabaseTimeout("the database did not respond")),
      timeoutMs,
    );
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Returns null if broadcast channels are unavailable, for example because cookies are blocked. */
function openChannel(): BroadcastChannel | null {
  try {
    return new BroadcastChannel("musiclab");
  } catch {
    return null;
  }
}
