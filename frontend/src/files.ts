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
  private readonly chosen = new Map<string, File>(); // which take no memory
  private readonly copies = new Map<string, Blob>(); // of what the store has, or had
  private readonly sounds = new Map<string, Promise<Sound>>();

  constructor(private readonly store: Store) {}

  /** The file's id from now on. */
  add(file: File): string {
    const id = newId();
    this.chosen.set(id, file);
    return id;
  }

  /** Null where this browser has it no more. What was chosen on this page, it has until it is closed. */
  async get(id: string): Promise<Blob | null> {
    const known = this.chosen.get(id) ?? this.copies.get(id);
    if (known) return known;
    const copy = await this.store.file(id);
    if (copy) this.copies.set(id, copy);
    return copy;
  }

  sound(id: string): Promise<Sound> {
    const known = this.sounds.get(id);
    if (known) return known;
    const sound = this.get(id).then(soundOf);
    this.sounds.set(id, sound);
    return sound;
  }

  /** Let go of the copies and the sound of all other files: a minute of sound takes 6 MB. */
  keepOnly(ids: ReadonlySet<string>): void {
    for (const held of [this.copies, this.sounds]) {
      for (const id of held.keys()) if (!ids.has(id)) held.delete(id);
    }
  }
}

async function soundOf(file: Blob | null): Promise<Sound> {
  if (file === null) return { samples: null, duration: null };
  const stated = await statedLength(file);
  if (stated !== null && stated > LONGEST_DRAWN_S && stated < Infinity) {
    return { samples: null, duration: stated };
  }
  const samples = await decode(file).catch(() => null);
  return { samples, duration: samples && samples.length / RATE };
}
