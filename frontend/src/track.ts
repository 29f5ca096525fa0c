/** A card to choose a track and its window, and to listen to it. */

import { ApiError, checkContent, checkName, type Field, NetworkError } from "./api";
import { cut, MAX_DRAWN_S } from "./audio";
import { announce, find, fromTemplate, setText, setTextOrHide } from "./dom";
import type { Files } from "./files";
import { type Playback, play } from "./player";
import { WindowSlider } from "./slider";
import type { Chosen } from "./store";
import { endText, fitStart, formatTime, parseTime, WINDOW_S, windowText } from "./times";
import { describeError } from "./words";

export class TrackCard {
  readonly element = fromTemplate("track-card");
  private readonly label: string;
  private readonly field: Field;
  private readonly start: HTMLInputElement;
  private readonly playButton: HTMLButtonElement;
  private chosen: Chosen | null = null;
  private currentFileId: string | null = null;
  private fileAwaitingKey: File | null = null;
  private samples: Float32Array<ArrayBuffer> | null = null;
  private slider: WindowSlider | null = null;
  private playback: Playback | null = null;
  private turn = 0; // identifies the latest choice: earlier ones still loading are ignored

  /** `onChange` is called when the choice changes; `onKeyNeeded` when the API requires a key. */
  constructor(
    number: 1 | 2,
    private readonly files: Files,
    private readonly onChange: () => void,
    private readonly onKeyNeeded: () => void,
  ) {
    this.label = `Track ${number}`;
    this.field = `track${number}`;
    this.start = find(this.element, ".start input");
    this.playButton = find(this.element, ".play");
    const heading = find(this.element, "h2");
    heading.textContent = this.label;
    heading.id = this.field;
    this.element.setAttribute("aria-labelledby", this.field);
    const input = find<HTMLInputElement>(this.element, "input[type=file]");
    this.showChosen(false);
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) this.choose(file);
      input.value = ""; // so that choosing the same file again fires an event
    });
    this.start.addEventListener("change", () => this.onStartTyped());
    this.playButton.addEventListener("click", () => this.togglePlay());
    const zoom = find<HTMLInputElement>(this.element, ".zoom input");
    zoom.addEventListener("input", () => this.slider?.zoom(Number(zoom.value) / 100));
  }

  /** The id of the file that is chosen or being checked. */
  get fileId(): string | null {
    return this.currentFileId;
  }

  /** The chosen track and window; null if there is nothing to submit. */
  get choice(): Chosen | null {
    return this.chosen;
  }

  /** True if the text typed as the window's start is not a valid time. */
  get isStartInvalid(): boolean {
    return this.chosen !== null && this.start.getAttribute("aria-invalid") === "true";
  }

  /** Checks a file and accepts it, or shows why it is rejected. */
  async choose(file: File): Promise<void> {
    const turn = this.beginLoading(`Checking ${file.name}…`);
    try {
      await checkName(this.field, file).catch(ignoreNetworkError);
      const fileId = this.files.add(file);
      if (turn === this.turn) this.currentFileId = fileId;
      const decoded = await this.files.audio(fileId);
      // MusicLab may be able to decode files that this browser cannot.
      const duration = decoded.duration ?? (await checkContent(this.field, file));
      if (turn !== this.turn) return;
      this.accept({ fileId, name: file.name, duration, start: 0 }, decoded.samples);
      // The emptied file input is announced as having no file, so announce the choice here.
      announce(`${this.label}: ${file.name}, ${windowText(0, duration)} selected.`);
    } catch (error) {
      if (turn === this.turn) this.reject(error, file);
    }
  }

  /** Repeats the check of the file that was rejected for lack of an API key, if any. */
  useKey(): void {
    if (this.fileAwaitingKey) this.choose(this.fileAwaitingKey);
  }

  /** Restores the choice of an earlier job. */
  async restore(chosen: Chosen): Promise<void> {
    const turn = this.beginLoading(`Checking ${chosen.name}…`);
    this.currentFileId = chosen.fileId;
    const [file, { samples }] = await Promise.all([
      this.files.get(chosen.fileId),
      this.files.audio(chosen.fileId),
    ]);
    if (turn !== this.turn) return;
    if (file) return this.accept(chosen, samples);
    this.endLoading(`${chosen.name} is no longer stored in this browser.`);
  }

  private beginLoading(text: string): number {
    this.clear();
    setTextOrHide(find(this.element, ".checking"), text);
    this.element.setAttribute("aria-busy", "true");
    this.turn += 1;
    return this.turn;
  }

  private clear(): void {
    this.playback?.stop();
    this.slider?.destroy();
    this.slider = null;
    this.chosen = null;
    this.currentFileId = null;
    this.fileAwaitingKey = null;
    this.samples = null;
    this.showChosen(false);
    find(this.element, ".error").hidden = true;
    this.onChange();
  }

  private showChosen(chosen: boolean): void {
    setText(find(this.element, ".drop .button span"), chosen ? "Change" : "Choose a file");
    const purpose = chosen ? "change the file" : "choose a file";
    find(this.element, "input[type=file]").setAttribute("aria-label", `${this.label}: ${purpose}`);
    find(this.element, ".kinds").hidden = chosen;
    find(this.element, ".facts").hidden = !chosen;
    find(this.element, ".chosen").hidden = !chosen;
  }

  private endLoading(outcome = ""): void {
    setTextOrHide(find(this.element, ".checking"), outcome);
    this.element.removeAttribute("aria-busy");
  }

  private accept(chosen: Chosen, samples: Float32Array<ArrayBuffer> | null): void {
    const { name, duration, start } = chosen;
    this.endLoading();
    this.chosen = chosen;
    this.samples = samples;
    setText(find(this.element, ".name"), name);
    setText(find(this.element, ".length"), duration === null ? "" : formatTime(duration, 0));
    this.showChosen(true);
    find(this.element, ".waveform").hidden = samples === null;
    const fixed = samples === null || (duration !== null && duration <= WINDOW_S);
    for (const selector of [".zoom", ".help"]) find(this.element, selector).hidden = fixed;
    find<HTMLInputElement>(this.element, ".zoom input").value = "0";
    this.playButton.hidden = samples === null;
    if (samples) {
      const container = find(this.element, ".waveform");
      this.slider = new WindowSlider(container, this.label, samples, start, (moved) =>
        this.onMoved(moved),
      );
    }
    this.show(start);
  }

  private defaultNote(): string {
    const duration = this.chosen?.duration ?? WINDOW_S;
    if (!this.samples) {
      const reason =
        duration > MAX_DRAWN_S
          ? "This track is too long to display and play here"
          : "This browser cannot play this file";
      return `${reason}, but MusicLab can process it. Enter the start time of the window.`;
    }
    if (duration >= WINDOW_S) return "";
    return `This track is ${duration.toFixed(1)} s long; the window is padded with silence.`;
  }

  private reject(error: unknown, file: File): void {
    this.endLoading();
    const { sentence, advice } = describeError(error);
    if (error instanceof ApiError && error.status === 401) {
      this.fileAwaitingKey = file;
      this.onKeyNeeded();
    }
    setText(find(this.element, ".error .sentence"), sentence);
    setText(find(this.element, ".error .advice"), advice);
    find(this.element, ".error").hidden = false;
  }

  private onStartTyped(): void {
    if (!this.chosen) return;
    const { duration } = this.chosen;
    const start = parseTime(this.start.value);
    this.start.setAttribute("aria-invalid", String(start === null));
    if (start === null) {
      const example = "Enter seconds (83.5) or minutes and seconds (1:23.5).";
      this.showNote(`"${this.start.value}" is not a valid time. ${example}`);
      this.onChange();
      return;
    }
    const fitted = fitStart(start, duration);
    this.onMoved(fitted);
    this.slider?.moveTo(fitted);
    this.slider?.reveal();
    if (duration !== null && start > fitted + 0.01) {
      this.showNote(`The window can start no later than ${formatTime(fitted)}.`);
    }
  }

  private showNote(sentence: string): void {
    setTextOrHide(find(this.element, ".note"), sentence);
    announce(sentence);
  }

  private onMoved(start: number): void {
    if (!this.chosen) return;
    this.chosen = { ...this.chosen, start };
    this.playback?.stop();
    this.show(start);
  }

  private show(start: number): void {
    this.start.value = formatTime(start);
    this.start.setAttribute("aria-invalid", "false");
    setTextOrHide(find(this.element, ".note"), this.defaultNote());
    setText(find(this.element, ".end"), endText(start, this.chosen?.duration ?? null));
    this.onChange();
  }

  private async togglePlay(): Promise<void> {
    if (this.playback) return this.playback.stop();
    if (!this.samples || !this.chosen) return;
    const { start } = this.chosen;
    this.playback = await play({
      voices: [cut(this.samples, start, WINDOW_S)],
      activeVoice: 0,
      from: 0,
      onTime: (seconds) => this.slider?.showTime(start + seconds),
      onStop: () => {
        this.playback = null;
        setText(this.playButton, "Play window");
        this.slider?.showTime(this.chosen?.start ?? 0);
      },
      onNoSound: (sentence) => this.showNote(sentence),
    });
    if (this.playback) setText(this.playButton, "Stop");
  }
}

/** Ignores network errors: a file chosen while MusicLab is unreachable is checked on submission. */
function ignoreNetworkError(error: unknown): void {
  if (!(error instanceof NetworkError)) throw error;
}
