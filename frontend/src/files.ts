/** Holds the files of the tracks and decodes each one once. */

import { decode, MAX_DRAWN_S, metadataDuration, RATE } from "./audio";
import { newId, type Store } from "./store";

export interface DecodedFile {
  /** Null if the browser cannot decode the file or no longer has it, or if it is too long. */
  samples: Float32Array<ArrayBuffer> | null;
  /** Seconds; null if unknown. */
  duration: number | null;
}

export class Files {
  private readonly chosen = new Map<string, File>(); // backed by the disk, not by memory
  private readonly copies = new Map<string, Blob>(); // read from the store
  private readonly decoded = new Map<string, Promise<DecodedFile>>();

  constructor(private readonly store: Store) {}

  /** Registers a file and returns its new id. */
  add(file: File): string {
    const id = newId();
    this.chosen.set(id, file);
    return id;
  }

  /** Returns null if the browser no longer has the file; files chosen on this page are kept. */
  async get(id: string): Promise<Blob | null> {
    const cached = this.chosen.get(id) ?? this.copies.get(id);
    if (cached) return cached;
    const copy = await this.store.file(id);
    if (copy) this.copies.set(id, copy);
    return copy;
  }

  audio(id: string): Promise<DecodedFile> {
    const cached = this.decoded.get(id);
    if (cached) return cached;
    const audio = this.get(id).then(decodeFile);
    this.decoded.set(id, audio);
    return audio;
  }

  /** Releases the copies and samples of all other files: a minute of audio takes 6 MB. */
  keepOnly(ids: ReadonlySet<string>): void {
    for (const cache of [this.copies, this.decoded]) {
      for (const id of cache.keys()) if (!ids.has(id)) cache.delete(id);
    }
  }
}

async function decodeFile(file: Blob | null): Promise<DecodedFile> {
  if (file === null) return { samples: null, duration: null };
  const duration = await metadataDuration(file);
  if (duration !== null && duration > MAX_DRAWN_S && duration < Infinity) {
    return { samples: null, duration };
  }
  const samples = await decode(file).catch(() => null);
  return { samples, duration: samples && samples.length / RATE };
}
