/** Entry point of the page: two track cards, the current job, and the history. */

import { ApiError, useApiKey } from "./api";
import { announce, find, fromTemplate, setText, setTextOrHide } from "./dom";
import { Files } from "./files";
import { History } from "./history";
import { isDone, Jobs } from "./jobs";
import { watchHealth } from "./notice";
import { Panel } from "./panel";
import { type Chosen, type Job, Store } from "./store";
import { TrackCard } from "./track";

const JOB_ID = /^#([0-9a-f]{32})$/;
const TITLE = document.title;

const store = await Store.open();
const files = new Files(store);
const cards = [
  new TrackCard(1, files, render, showKeyForm),
  new TrackCard(2, files, render, showKeyForm),
] as const;
const jobs = new Jobs(store, files, render, showRemoved);
const panel = new Panel(files, { retry, discard, chooseWindows });
const history = new History((key) => {
  setTextOrHide(find(document, "#gone"), "");
  jobs.show(key);
  panel.focus();
});
const generate = find<HTMLButtonElement>(document, "#generate");
const keyForm = find<HTMLFormElement>(document, "#access");
let pendingKey: string | null = null; // key of the job whose end is to be announced
let starting = false;
let titlePrefix = ""; // shown in the title of a background tab

function choices(): readonly [Chosen, Chosen] | null {
  const [first, second] = cards.map((card) => (card.isStartInvalid ? null : card.choice));
  return first && second ? [first, second] : null;
}

/** Returns what the user still has to do before generating. */
function hint(): string {
  const missing = cards.filter((card) => card.choice === null).length;
  if (missing === 0 && choices() === null) return "Enter a valid start time for the window.";
  return ["", "Choose one more track.", "Choose two tracks."][missing] ?? "";
}

function render(): void {
  const shown = jobs.shown;
  panel.render(shown, jobs.shownLive);
  history.render(jobs.list(), shown);
  generate.disabled = starting || choices() === null;
  setText(find(document, "#hint"), hint());
  if (shown?.trouble?.code === "unauthorized") showKeyForm();
  updateAddress(shown);
  const usedFiles = [...cards, ...(shown?.tracks ?? [])].map(({ fileId }) => fileId);
  files.keepOnly(new Set(usedFiles.filter((id) => id !== null)));
  announceEnd(shown);
}

/** Puts the job id in the URL, for reloads; only on changes, as browsers limit the rate. */
function updateAddress(shown: Job | null): void {
  const hash = shown?.jobId ? `#${shown.jobId}` : "";
  if (location.hash === hash) return;
  window.history.replaceState(null, "", hash || location.pathname + location.search);
}

function announceEnd(shown: Job | null): void {
  if (shown && !isDone(shown)) pendingKey = shown.key;
  const ended = shown !== null && shown.key === pendingKey && isDone(shown);
  if (ended) {
    pendingKey = null;
    const ready = shown.status?.status === "completed";
    announce(ready ? "Your music is ready." : "Your music could not be generated.");
  }
  if (ended && document.hidden) titlePrefix = "Done – ";
  const percent = shown?.status?.status === "running" ? `${shown.status.progress}% – ` : "";
  document.title = titlePrefix + percent + TITLE;
}

function showRemoved(job: Job): void {
  const names = job.tracks?.map(({ name }) => name).join(" + ") ?? "a link";
  const sentence = `The music from ${names} was deleted or has expired.`;
  setTextOrHide(find(document, "#gone"), sentence);
  announce(sentence);
}

async function start(tracks: readonly [Chosen, Chosen]): Promise<void> {
  if (starting) return;
  starting = true;
  setTextOrHide(find(document, "#gone"), "");
  render(); // storing large tracks takes a moment
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
    panel.focus(); // the focused button is now hidden
  } else if (job.tracks) start(job.tracks);
}

async function discard(job: Job): Promise<void> {
  if (job.status?.status !== "completed" || (await isConfirmed())) await remove(job);
}

async function remove(job: Job): Promise<void> {
  try {
    await jobs.discard(job);
    announce(isDone(job) ? "Deleted." : "Cancelled.");
    restoreFocus();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) showKeyForm();
    panel.showError(error, () => remove(job));
  }
}

/** Moves the focus to a useful element if the focused one has disappeared. */
function restoreFocus(): void {
  const focused = document.activeElement;
  if (focused !== document.body && focused?.getClientRects().length) return;
  if (generate.disabled) find(cards[0].element, "input").focus();
  else generate.focus();
}

async function isConfirmed(): Promise<boolean> {
  // A new dialog each time: the close event of a previous one may fire after the next has opened.
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

function showKeyForm(): void {
  keyForm.hidden = false;
}

/** Assigns a dropped file to the card under it or to the first free one; two files fill both. */
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
  if (tracks && detail < 2) start(tracks); // a double click starts only one job
});
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  useApiKey(find<HTMLInputElement>(keyForm, "input[type=password]").value);
  keyForm.hidden = true;
  for (const card of cards) card.useKey();
  if (jobs.shown?.trouble?.code === "unauthorized") retry(jobs.shown);
  else if (!panel.repeat()) restoreFocus();
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
  titlePrefix = "";
  render();
});

window.addEventListener("hashchange", () => {
  const jobId = JOB_ID.exec(location.hash)?.[1];
  if (jobId) jobs.showId(jobId);
});

await jobs.open(JOB_ID.exec(location.hash)?.[1] ?? null);
restore(jobs.shown?.tracks ?? null);
watchHealth();
