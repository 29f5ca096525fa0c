/** The page: two cards to choose tracks on, the job that is looked at, and the jobs before it. */

import { ApiError, useApiKey } from "./api";
import { find, fromTemplate, say, sayOrHide, tell } from "./dom";
import { Files } from "./files";
import { History } from "./history";
import { isDone, Jobs } from "./jobs";
import { keepNoticing } from "./notice";
import { Panel } from "./panel";
import { type Chosen, type Job, Store } from "./store";
import { TrackCard } from "./track";

const JOB_ID = /^#([0-9a-f]{32})$/;
const TITLE = document.title;

const store = await Store.open();
const files = new Files(store);
const cards = [
  new TrackCard(1, files, render, askForKey),
  new TrackCard(2, files, render, askForKey),
] as const;
const jobs = new Jobs(store, files, render, gone);
const panel = new Panel(files, { retry, discard, chooseWindows });
const history = new History((key) => {
  sayOrHide(find(document, "#gone"), "");
  jobs.show(key);
  panel.focus();
});
const generate = find<HTMLButtonElement>(document, "#generate");
const access = find<HTMLFormElement>(document, "#access");
let working: string | null = null; // the job whose end is to be announced
let starting = false;
let news = ""; // for who looks at another tab

function choices(): readonly [Chosen, Chosen] | null {
  const [first, second] = cards.map((card) => (card.isUnclear ? null : card.choice));
  return first && second ? [first, second] : null;
}

/** What is to be done before there can be music. */
function hint(): string {
  const missing = cards.filter((card) => card.choice === null).length;
  if (missing === 0 && choices() === null) return "Say where the window starts.";
  return ["", "Choose the other track, too.", "Choose two tracks."][missing] ?? "";
}

function render(): void {
  const shown = jobs.shown;
  panel.render(shown, jobs.shownLive);
  history.render(jobs.list(), shown);
  generate.disabled = starting || choices() === null;
  say(find(document, "#hint"), hint());
  if (shown?.trouble?.code === "unauthorized") askForKey();
  remember(shown);
  const heard = [...cards, ...(shown?.tracks ?? [])].map(({ fileId }) => fileId);
  files.keepOnly(new Set(heard.filter((id) => id !== null)));
  announce(shown);
}

/** In the address, where a page that is loaded again finds it; browsers let that change rarely. */
function remember(shown: Job | null): void {
  const hash = shown?.jobId ? `#${shown.jobId}` : "";
  if (location.hash === hash) return;
  window.history.replaceState(null, "", hash || location.pathname + location.search);
}

function announce(shown: Job | null): void {
  if (shown && !isDone(shown)) working = shown.key;
  const ended = shown !== null && shown.key === working && isDone(shown);
  if (ended) {
    working = null;
    const ready = shown.status?.status === "completed";
    tell(ready ? "Your music is ready." : "Your music could not be made.");
  }
  if (ended && document.hidden) news = "Done – ";
  const percent = shown?.status?.status === "running" ? `${shown.status.progress} % – ` : "";
  document.title = news + percent + TITLE;
}

function gone(job: Job): void {
  const names = job.tracks?.map(({ name }) => name).join(" + ") ?? "a link";
  const sentence = `The music of ${names} was deleted, or has expired.`;
  sayOrHide(find(document, "#gone"), sentence);
  tell(sentence);
}

async function start(tracks: readonly [Chosen, Chosen]): Promise<void> {
  if (starting) return;
  starting = true;
  sayOrHide(find(document, "#gone"), "");
  render(); // large tracks take a moment to be kept
  try {
    await jobs.start(tracks);
    panel.focus();
  } finally {
    starting = false;
    render();
  }
}

function retry(job: Job): void {
  if (job.trouble) {
    jobs.retry(job);
    panel.focus(); // the button is gone
  } else if (job.tracks) start(job.tracks);
}

async function discard(job: Job): Promise<void> {
  if (job.status?.status !== "completed" || (await isConfirmed())) await remove(job);
}

async function remove(job: Job): Promise<void> {
  try {
    await jobs.discard(job);
    tell(isDone(job) ? "Deleted." : "Cancelled.");
    goOn();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) askForKey();
    panel.showError(error, () => remove(job));
  }
}

/** Where the keyboard goes on when what it was at is there no more. */
function goOn(): void {
  const at = document.activeElement;
  if (at !== document.body && at?.getClientRects().length) return;
  if (generate.disabled) find(cards[0].element, "input").focus();
  else generate.focus();
}

async function isConfirmed(): Promise<boolean> {
  // A dialog for each question: of an old one's end is told late, when the next may be open.
  const dialog = fromTemplate("confirm") as HTMLDialogElement;
  document.body.append(dialog);
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve));
  dialog.remove();
  return dialog.returnValue === "delete";
}

function chooseWindows({ tracks }: Job): void {
  restore(tracks);
  cards[0].element.scrollIntoView({ block: "start" });
  find(cards[0].element, "input").focus();
}

function restore(tracks: Job["tracks"]): void {
  tracks?.forEach((chosen, index) => {
    cards[index]?.restore(chosen);
  });
}

function askForKey(): void {
  access.hidden = false;
}

/** A file goes to the card it is dropped on, or to the first free one; two go to both. */
function drop(event: DragEvent): void {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const dropped = [...(event.dataTransfer?.files ?? [])].slice(0, 2);
  const under = cards.findIndex((card) => card.element.contains(event.target as Node));
  const free = cards.findIndex((card) => card.choice === null);
  const first = dropped.length === 2 ? 0 : Math.max(0, under >= 0 ? under : free);
  dropped.forEach((file, index) => {
    cards[first + index]?.choose(file);
  });
}

find(document, "#tracks").append(...cards.map((card) => card.element));
generate.addEventListener("click", ({ detail }) => {
  const tracks = choices();
  if (tracks && detail < 2) start(tracks); // a double click means one job
});
access.addEventListener("submit", (event) => {
  event.preventDefault();
  useApiKey(find<HTMLInputElement>(access, "input[type=password]").value);
  access.hidden = true;
  for (const card of cards) card.useKey();
  if (jobs.shown?.trouble?.code === "unauthorized") retry(jobs.shown);
  else if (!panel.repeat()) goOn();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
document.addEventListener("drop", drop);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  news = "";
  render();
});

window.addEventListener("hashchange", () => {
  const jobId = JOB_ID.exec(location.hash)?.[1];
  if (jobId) jobs.showId(jobId);
});

await jobs.open(JOB_ID.exec(location.hash)?.[1] ?? null);
restore(jobs.shown?.tracks ?? null);
keepNoticing();
