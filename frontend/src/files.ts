/** The files of tracks, and their sound, which is decoded once. */

import { decode } from "./audio";
import { newId, type Store } from "./store";

type Samples = Float32Array<ArrayBuffer>;

export class Files {
  private readonly files = new Map<string, File>();
  private readonly sounds = new Map<string, Promise<Samples | null>>();

  constructor(private readonly store: Store) {}

  /** The file's id from now on. */
  add(file: File): string {
    const id = newId();
    this.files.set(id, file);
    return id;
  }

  /** Null where this browser has it no more. What this page had, it has until it is closed. */
  async get(id: string): Promise<File | null> {
    const file = this.files.get(id) ?? (await this.store.file(id));
    if (file) this.files.set(id, file);
    return file;
  }

  /** Null for a file that this browser cannot decode, or has no more. */
  samples(id: string): Promise<Samples | null> {
    const known = this.sounds.get(id);
    if (known) return known;
    const decoded = this.get(id).then((file) => file && decode(file).catch(() => null));
    this.sounds.set(id, decoded);
    return decoded;
  }

  /** Let go of the sound of all other files: a minute takes 6 MB. */
  keepSounds(ids: ReadonlySet<string>): void {
    for (const id of this.sounds.keys()) if (!ids.has(id)) this.sounds.delete(id);
  }
}
