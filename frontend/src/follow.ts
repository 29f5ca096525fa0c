/** Follows a job to its end: by events, or by asking where they do not come. */

import { ApiError, type Deleted, eventsUrl, type Status, status } from "./api";

const POLL_MS = 2_000;
const HIDDEN_POLL_MS = 5_000;
const QUIET_MS = 30_000; // a connection may end unnoticed, as in a laptop that is closed
const SILENCE_MS = 5_000; // the first event comes at once, unless something on the way keeps it
export const FINAL: readonly string[] = ["completed", "failed", "deleted"];

export interface Follower {
  onStatus: (told: Status | Deleted) => void;
  /** Whether MusicLab can be reached. */
  onReach: (reached: boolean) => void;
}

/**
 * Follow a job until it is done or the returned function is called.
 *
 * What nobody looks at is asked for now and then: a browser has few connections to a host, for all
 * of its tabs together, and each stream of events takes one.
 */
export function follow(
  jobId: string,
  isShown: boolean,
  { onStatus, onReach }: Follower,
): () => void {
  let events: EventSource | null = null;
  let timer = 0;
  let ended = false;
  let heard = false; // events do come here
  let round = 0; // answers of an earlier one no longer count

  const isLookedAt = () => isShown && !document.hidden;
  const halt = () => {
    round += 1;
    events?.close();
    events = null;
    clearTimeout(timer);
  };
  const end = () => {
    ended = true;
    halt();
    document.removeEventListener("visibilitychange", begin);
    window.removeEventListener("online", begin);
  };
  const tell = (told: Status | Deleted) => {
    if (FINAL.includes(told.status)) end();
    onReach(true);
    onStatus(told);
  };

  async function poll(): Promise<void> {
    const mine = round;
    try {
      const told = await status(jobId);
      if (mine === round) tell(told);
    } catch (error) {
      if (mine !== round) return;
      if (error instanceof ApiError && error.status === 404) {
        tell({ job_id: jobId, status: "deleted" });
      } else {
        onReach(false);
      }
    }
    if (mine !== round || ended) return;
    if (isLookedAt()) timer = window.setTimeout(heard ? listen : poll, POLL_MS);
    else timer = window.setTimeout(poll, HIDDEN_POLL_MS);
  }

  function listen(): void {
    events = new EventSource(eventsUrl(jobId));
    timer = window.setTimeout(ask, SILENCE_MS);
    events.onmessage = (event) => {
      clearTimeout(timer);
      timer = window.setTimeout(ask, QUIET_MS);
      heard = true;
      tell(JSON.parse(event.data));
    };
    events.onerror = ask; // which tells why
  }

  function ask(): void {
    halt();
    poll();
  }

  function begin(): void {
    halt();
    if (isLookedAt()) listen();
    else poll();
  }

  document.addEventListener("visibilitychange", begin);
  window.addEventListener("online", begin);
  begin();
  return end;
}
