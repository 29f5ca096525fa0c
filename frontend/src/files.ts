/** The files of tracks, and their sound, which is decoded once. */

import { decode, LONGEST_DRAWN_S, RATE, statedLength } from "./audio";
import { newId, type Store } from "./store";

export interface Sound {
  /** Null for a file that this browser cannot decode, or has no more, or that is too long. */
  samples: Float32Array<ArrayBuffer> | null;
  /** Seconds; null where this browser cannot tell. */
  duration: number | null;
}

export class Files {
  private readonly files = new Map<string, File>();
  private readonly sounds = new Map<string, Promise<Sound>>();

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

  sound(id: string): Promise<Sound> {
    const known = this.sounds.get(id);
    if (known) return known;
    const sound = this.get(id).then(soundOf);
    this.sounds.set(id, sound);
    return sound;
  }

  /** Let go of the sound of all other files: a minute takes 6 MB. */
  keepSounds(ids: ReadonlySet<string>): void {
    for (const id of this.sounds.keys()) if (!ids.has(id)) this.sounds.delete(id);
  }
}

async function soundOf(file: File | null): Promise<Sound> {
  if (file === null) return { samples: null, duration: null };
  const stated = await statedLength(file);
  if (stated !== null && stated > LONGEST_DRAWN_S && stated < Infinity) {
    return { samples: null, duration: stated };
  }
  const samples = await decode(file).catch(() => null);
  return { samples, duration: samples && samples.length / RATE };
}
