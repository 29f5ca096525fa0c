/** Shows one job: its progress, its error, or its music. */

import { adviceFor } from "./advice";
import type { Status } from "./api";
import { find, setText, setTextOrHide } from "./dom";
import type { Files } from "./files";
import type { LiveState } from "./jobs";
import { ResultView } from "./result";
import type { Job } from "./store";
import { formatEstimate, formatMoment, windowText } from "./times";
import { describeError } from "./words";

const STAGES = ["Upload", "Queue", "Prepare", "Generate", "Save"];
const COUNTDOWN_MS = 1_000;

/** Errors caused by the tracks: a retry with the same tracks would fail again. */
const TRACK_ERRORS = [
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
  private readonly retryButton = find<HTMLButtonElement>(this.element, "#again");
  private readonly discardButton = find<HTMLButtonElement>(this.element, "#discard");
  private result: ResultView | null = null;
  private job: Job | null = null;
  private live: LiveState | null = null;
  /** Error of the last download or deletion, as opposed to the job's own, and how to repeat it. */
  private actionError: { error: unknown; repeat: () => void } | null = null;
  /** Estimated completion (ms since 1970; 0 if unknown), and the status it came from. */
  private due = { status: null as Status | null, at: 0 };

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

  render(job: Job | null, live: LiveState): void {
    const changed = job?.key !== this.job?.key || job?.status?.status !== this.job?.status?.status;
    if (changed) this.actionError = null;
    this.job = job;
    this.live = live;
    this.element.hidden = job === null;
    const status = job?.status ?? null;
    const completed = status?.status === "completed";
    if (!completed || this.result?.job.key !== job?.key) this.clearResult();
    if (job === null) return;
    const trouble = this.troubleOf(job);
    this.work.hidden = completed || trouble !== null;
    if (!this.work.hidden) this.showProgress(job, live);
    this.showTrouble(trouble);
    setText(find(this.element, "#job-title"), titleOf(job));
    setTextOrHide(find(this.element, "#job-tracks"), tracksOf(job));
    setTextOrHide(find(this.element, "#facts"), completed && status ? factsOf(status) : "");
    if (completed && !trouble && !this.result) this.showResult(job, status.job_id);
    find(this.element, "#result").hidden = this.result === null;
    this.showActions(job, trouble !== null);
  }

  /** Shows an error and offers to repeat the action. */
  showError(error: unknown, repeat: () => void): void {
    this.actionError = { error, repeat };
    this.renderAgain();
  }

  /** Repeats the last failed action; returns false if there is none. */
  repeat(): boolean {
    if (this.actionError === null) return false;
    const { repeat } = this.actionError;
    this.actionError = null;
    this.renderAgain();
    this.focus(); // the focused button is now hidden
    repeat();
    return true;
  }

  private renderAgain(): void {
    if (this.live) this.render(this.job, this.live);
  }

  focus(): void {
    find(this.element, "#job-title").focus();
  }

  private showProgress({ jobId, status }: Job, live: LiveState): void {
    const current = stageOf(jobId, status);
    this.element.querySelectorAll("#stages li").forEach((stage, index) => {
      stage.classList.toggle("done", index < current);
      if (index === current) stage.setAttribute("aria-current", "step");
      else stage.removeAttribute("aria-current");
    });
    const progress = find<HTMLProgressElement>(this.element, "progress");
    progress.value = jobId === null ? 100 * (live.sent ?? 0) : (status?.progress ?? 0);
    setText(find(this.element, "#message"), messageOf(jobId, status, live));
    if (this.due.status !== status) {
      const left = status?.eta_seconds;
      this.due = { status, at: left ? Date.now() + 1000 * left : 0 };
    }
    this.showTimeLeft();
  }

  /**
   * Counts down from the last estimate, because events arrive only when the job changes. Hidden
   * while MusicLab is unreachable.
   */
  private showTimeLeft(): void {
    const left = this.live?.reachable ? (this.due.at - Date.now()) / 1000 : 0;
    const text = left > 0 ? `Ready in ${formatEstimate(left)}.` : "";
    setTextOrHide(find(this.element, "#eta"), text);
  }

  private troubleOf({ trouble, status }: Job): { sentence: string; advice: string } | null {
    if (this.actionError !== null) return describeError(this.actionError.error);
    if (trouble) return { sentence: trouble.sentence, advice: adviceFor(trouble.code) };
    if (status?.status !== "failed") return null;
    return { sentence: status.message, advice: adviceFor(status.error_code ?? "") };
  }

  private showTrouble(trouble: { sentence: string; advice: string } | null): void {
    this.trouble.hidden = trouble === null;
    setText(find(this.trouble, ".sentence"), trouble?.sentence ?? "");
    setText(find(this.trouble, ".advice"), trouble?.advice ?? "");
  }

  private showActions(job: Job, hasTrouble: boolean): void {
    const code = job.trouble?.code ?? job.status?.error_code ?? "";
    const ended = hasTrouble || job.status?.status === "completed";
    const repeatable = job.tracks !== null && !TRACK_ERRORS.includes(code);
    this.retryButton.hidden = !(hasTrouble && (repeatable || this.actionError !== null));
    find(this.element, "#other-windows").hidden = !(ended && job.tracks !== null);
    const completed = job.status?.status === "completed";
    setText(this.discardButton, completed ? "Delete" : hasTrouble ? "Remove" : "Cancel");
    this.countDown();
  }

  private countDown(): void {
    const left = Math.ceil(((this.job?.trouble?.notBefore ?? 0) - Date.now()) / 1000);
    this.retryButton.disabled = left > 0;
    setText(this.retryButton, left > 0 && left < Infinity ? `Try again in ${left} s` : "Try again");
  }

  private clearResult(): void {
    this.result?.destroy();
    this.result = null;
  }

  private showResult(job: Job, jobId: string): void {
    const result = new ResultView(job, jobId, this.files);
    this.result = result;
    const container = find(this.element, "#result");
    container.hidden = false; // drawing needs the element's width
    container.replaceChildren(result.element);
    result.load(jobId).catch((error) => {
      if (this.result !== result) return;
      this.clearResult();
      this.showError(error, () => this.renderAgain());
    });
  }
}

function titleOf({ trouble, status }: Job): string {
  if (trouble) return "Not sent";
  if (status?.status === "completed") return "New music";
  return status?.status === "failed" ? "Generation failed" : "Generating music";
}

function tracksOf({ tracks }: Job): string {
  const each = tracks?.map(
    ({ name, start, duration }) => `${name}, ${windowText(start, duration)}`,
  );
  return each?.join(" +\n") ?? "";
}

function factsOf({ model_version, codec, expires_at }: Status): string {
  const untrained = codec === "starter" ? " with an untrained codec" : "";
  const origin = `Generated by model version ${model_version}${untrained}.`;
  if (!expires_at) return origin;
  return `Available until ${formatMoment(new Date(expires_at), new Date())}. ${origin}`;
}

function stageOf(jobId: string | null, status: Status | null): number {
  if (jobId === null) return 0;
  if (status?.status !== "running") return 1;
  if (status.progress < 50) return 2;
  return status.progress < 95 ? 3 : 4;
}

function messageOf(
  jobId: string | null,
  status: Status | null,
  { sent, reachable }: LiveState,
): string {
  if (!reachable) {
    const next = jobId === null ? "The upload will restart" : "Your job will continue";
    return `MusicLab cannot be reached. ${next} once the service is available. Retrying…`;
  }
  if (jobId === null)
    return sent === null ? "Another tab is uploading the tracks…" : "Uploading the tracks…";
  const position = status?.queue_position;
  return `${status?.message ?? "Waiting in the queue"}${position ? ` (position ${position})` : ""}`;
}
