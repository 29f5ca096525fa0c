/** Follows a job until it ends: over the event stream, or by polling if no events arrive. */

import { ApiError, type Deleted, eventsUrl, type Status, status } from "./api";

const POLL_MS = 2_000;
const HIDDEN_POLL_MS = 5_000;
const IDLE_TIMEOUT_MS = 30_000; // a connection may die unnoticed, for example while a laptop sleeps
const FIRST_EVENT_TIMEOUT_MS = 5_000; // the first event is immediate unless a proxy buffers it
export const FINAL: readonly string[] = ["completed", "failed", "deleted"];

export interface Follower {
  onStatus: (update: Status | Deleted) => void;
  /** Called with false when a status request fails, and with true on every update. */
  onReachable: (reachable: boolean) => void;
}

/**
 * Follows a job until it ends or the returned function is called.
 *
 * A job that is not visible is polled at a low rate: browsers limit the connections per host across
 * all tabs, and each event stream occupies one.
 */
export function follow(
  jobId: string,
  isShown: boolean,
  { onStatus, onReachable }: Follower,
): () => void {
  let events: EventSource | null = null;
  let timer = 0;
  let ended = false;
  let eventsWork = false; // at least one event has arrived
  let round = 0; // responses from an earlier round are ignored

  const isVisible = () => isShown && !document.hidden;
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
  const report = (update: Status | Deleted) => {
    if (FINAL.includes(update.status)) end();
    onReachable(true);
    onStatus(update);
  };

  async function poll(): Promise<void> {
    const thisRound = round;
    try {
      const update = await status(jobId);
      if (thisRound === round) report(update);
    } catch (error) {
      if (thisRound !== round) return;
      if (error instanceof ApiError && error.status === 404) {
        report({ job_id: jobId, status: "deleted" });
      } else {
        onReachable(false);
      }
    }
    if (thisRound !== round || ended) return;
    if (isVisible()) timer = window.setTimeout(eventsWork ? listen : poll, POLL_MS);
    else timer = window.setTimeout(poll, HIDDEN_POLL_MS);
  }

  function listen(): void {
    events = new EventSource(eventsUrl(jobId));
    timer = window.setTimeout(switchToPolling, FIRST_EVENT_TIMEOUT_MS);
    events.onmessage = (event) => {
      clearTimeout(timer);
      timer = window.setTimeout(switchToPolling, IDLE_TIMEOUT_MS);
      eventsWork = true;
      report(JSON.parse(event.data));
    };
    events.onerror = switchToPolling; // the status request returns the cause
  }

  function switchToPolling(): void {
    halt();
    poll();
  }

  function begin(): void {
    halt();
    if (isVisible()) listen();
    else poll();
  }

  document.addEventListener("visibilitychange", begin);
  window.addEventListener("online", begin);
  begin();
  return end;
}
