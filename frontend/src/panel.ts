/** The job that is looked at: how far it is, what went wrong, or its music. */

import { adviceFor } from "./advice";
import type { Status } from "./api";
import { find, say, sayOrHide } from "./dom";
import type { Files } from "./files";
import type { Live } from "./jobs";
import { ResultView } from "./result";
import type { Job } from "./store";
import { formatMoment, roughly, windowText } from "./times";
import { inWords } from "./words";

const STAGES = ["Upload", "Queue", "Prepare", "Generate", "Save"];
const COUNTDOWN_MS = 1_000;

/** Faults of the tracks, which the same tracks will have again. */
const OF_THE_TRACKS = [
  ...["not_audio", "window_past_end", "unsupported_format", "empty_file", "lost"],
  ...["file_too_large", "request_too_large", "too_slow"],
];

export interface Actions {
  retry: (job: Job) => void;
  discard: (job: Job) => void;
  chooseWindows: (job: Job) => void;
}

export class Panel {
  private readonly element = find(document, "#job");
  private readonly work = find(this.element, "#work");
  private readonly trouble = find(this.element, "#trouble");
  private readonly again = find<HTMLButtonElement>(this.element, "#again");
  private readonly discardButton = find<HTMLButtonElement>(this.element, "#discard");
  private result: ResultView | null = null;
  private job: Job | null = null;
  private live: Live | null = null;
  /** What went wrong with the job's music or removal, rather than with the job; and to repeat it. */
  private fault: { error: unknown; repeat: () => void } | null = null;
  private due = { told: null as Status | null, at: 0 }; // milliseconds since 1970

  constructor(
    private readonly files: Files,
    private readonly actions: Actions,
  ) {
    for (const name of STAGES) {
      const stage = document.createElement("li");
      stage.textContent = name;
      find(this.element, "#stages").append(stage);
    }
    const onClick = (selector: string, act: (job: Job) => void) =>
      find(this.element, selector).addEventListener("click", () => this.job && act(this.job));
    onClick("#again", (job) => {
      if (!this.repeat()) this.actions.retry(job);
    });
    setInterval(() => {
      this.showTimeLeft();
      this.countDown();
    }, COUNTDOWN_MS);
    onClick("#other-windows", (job) => this.actions.chooseWindows(job));
    onClick("#discard", (job) => this.actions.discard(job));
  }

  render(job: Job | null, live: Live): void {
    const changed = job?.key !== this.job?.key || job?.status?.status !== this.job?.status?.status;
    if (changed) this.fault = null;
    this.job = job;
    this.live = live;
    this.element.hidden = job === null;
    const status = job?.status ?? null;
    const completed = status?.status === "completed";
    if (!completed || this.result?.job.key !== job?.key) this.dropResult();
    if (job === null) return;
    const trouble = this.troubleOf(job);
    this.work.hidden = completed || trouble !== null;
    if (!this.work.hidden) this.showProgress(job, live);
    this.showTrouble(trouble);
    say(find(this.element, "#job-title"), titleOf(job));
    sayOrHide(find(this.element, "#job-tracks"), tracksOf(job));
    sayOrHide(find(this.element, "#facts"), completed && status ? factsOf(status) : "");
    if (completed && !trouble && !this.result) this.showResult(job, status.job_id);
    find(this.element, "#result").hidden = this.result === null;
    this.showActions(job, trouble !== null);
  }

  /** Show why something could not be done, and offer to do it anew. */
  showError(error: unknown, repeat: () => void): void {
    this.fault = { error, repeat };
    this.renderAgain();
  }

  /** Do anew what was complained of last; returns whether there was anything. */
  repeat(): boolean {
    if (this.fault === null) return false;
    const { repeat } = this.fault;
    this.fault = null;
    this.renderAgain();
    this.focus(); // the button is gone
    repeat();
    return true;
  }

  private renderAgain(): void {
    if (this.live) this.render(this.job, this.live);
  }

  focus(): void {
    find(this.element, "#job-title").focus();
  }

  private showProgress({ jobId, status }: Job, live: Live): void {
    const now = stageOf(jobId, status);
    this.element.querySelectorAll("#stages li").forEach((stage, index) => {
      stage.classList.toggle("done", index < now);
      if (index === now) stage.setAttribute("aria-current", "step");
      else stage.removeAttribute("aria-current");
    });
    const progress = find<HTMLProgressElement>(this.element, "progress");
    progress.value = jobId === null ? 100 * (live.sent ?? 0) : (status?.progress ?? 0);
    say(find(this.element, "#message"), messageOf(jobId, status, live));
    if (this.due.told !== status) {
      const left = status?.eta_seconds;
      this.due = { told: status, at: left ? Date.now() + 1000 * left : 0 };
    }
    this.showTimeLeft();
  }

  /**
   * What was told last, less the time since: nothing is told as long as nothing changes. Nobody
   * knows while MusicLab is away.
   */
  private showTimeLeft(): void {
    const left = this.live?.reached ? (this.due.at - Date.now()) / 1000 : 0;
    sayOrHide(find(this.element, "#eta"), left > 0 ? `Ready in ${roughly(left)}.` : "");
  }

  private troubleOf({ trouble, status }: Job): { sentence: string; advice: string } | null {
    if (this.fault !== null) return inWords(this.fault.error);
    if (trouble) return { sentence: trouble.sentence, advice: adviceFor(trouble.code) };
    if (status?.status !== "failed") return null;
    return { sentence: status.message, advice: adviceFor(status.error_code ?? "") };
  }

  private showTrouble(trouble: { sentence: string; advice: string } | null): void {
    this.trouble.hidden = trouble === null;
    say(find(this.trouble, ".sentence"), trouble?.sentence ?? "");
    say(find(this.trouble, ".advice"), trouble?.advice ?? "");
  }

  private showActions(job: Job, isTroubled: boolean): void {
    const code = job.trouble?.code ?? job.status?.error_code ?? "";
    const ended = isTroubled || job.status?.status === "completed";
    const repeatable = job.tracks !== null && !OF_THE_TRACKS.includes(code);
    this.again.hidden = !(isTroubled && (repeatable || this.fault !== null));
    find(this.element, "#other-windows").hidden = !(ended && job.tracks !== null);
    const completed = job.status?.status === "completed";
    say(this.discardButton, completed ? "Delete" : isTroubled ? "Remove" : "Cancel");
    this.countDown();
  }

  private countDown(): void {
    const left = Math.ceil(((this.job?.trouble?.notBefore ?? 0) - Date.now()) / 1000);
    this.again.disabled = left > 0;
    say(this.again, left > 0 && left < Infinity ? `Try again in ${left} s` : "Try again");
  }

  private dropResult(): void {
    this.result?.destroy();
    this.result = null;
  }

  private showResult(job: Job, jobId: string): void {
    const result = new ResultView(job, jobId, this.files);
    this.result = result;
    const place = find(this.element, "#result");
    place.hidden = false; // what is drawn into it needs its width
    place.replaceChildren(result.element);
    result.load(jobId).catch((error) => {
      if (this.result !== result) return;
      this.dropResult();
      this.showError(error, () => this.renderAgain());
    });
  }
}

function titleOf({ trouble, status }: Job): string {
  if (trouble) return "Not sent";
  if (status?.status === "completed") return "New music";
  return status?.status === "failed" ? "No music" : "Making music";
}

function tracksOf({ tracks }: Job): string {
  const each = tracks?.map(
    ({ name, start, duration }) => `${name}, ${windowText(start, duration)}`,
  );
  return each?.join(" +\n") ?? "";
}

function factsOf({ model_version, codec, expires_at }: Status): string {
  const untrained = codec === "starter" ? " with an untrained codec" : "";
  const made = `Made by version ${model_version} of the model${untrained}.`;
  if (!expires_at) return made;
  return `Kept until ${formatMoment(new Date(expires_at), new Date())}. ${made}`;
}

function stageOf(jobId: string | null, status: Status | null): number {
  if (jobId === null) return 0;
  if (status?.status !== "running") return 1;
  if (status.progress < 50) return 2;
  return status.progress < 95 ? 3 : 4;
}

function messageOf(jobId: string | null, status: Status | null, { sent, reached }: Live): string {
  if (!reached) {
    const safe = jobId === null ? "The upload starts again" : "Your job goes on";
    return `MusicLab cannot be reached. ${safe} when it is back; this page keeps trying.`;
  }
  if (jobId === null)
    return sent === null ? "Another tab uploads the tracks…" : "Uploading the tracks…";
  const place = status?.queue_position;
  return `${status?.message ?? "Waiting in the queue"}${place ? ` (place ${place})` : ""}`;
}
