/** A card on which a track is chosen, looked at and listened to. */

import { ApiError, checkContent, checkName, type Field, NetworkError } from "./api";
import { cut, LONGEST_DRAWN_S } from "./audio";
import { find, fromTemplate, say, sayOrHide, tell } from "./dom";
import type { Files } from "./files";
import { type Playback, play } from "./player";
import { WindowSlider } from "./slider";
import type { Chosen } from "./store";
import { endText, fitStart, formatTime, parseTime, WINDOW_S, windowText } from "./times";
import { inWords } from "./words";

export class TrackCard {
  readonly element = fromTemplate("track-card");
  private readonly label: string;
  private readonly field: Field;
  private readonly start: HTMLInputElement;
  private readonly playButton: HTMLButtonElement;
  private chosen: Chosen | null = null;
  private lookedAt: string | null = null;
  private keyless: File | null = null;
  private samples: Float32Array<ArrayBuffer> | null = null;
  private slider: WindowSlider | null = null;
  private playback: Playback | null = null;
  private turn = 0; // of several files that are chosen in a row, the last one counts

  /** `onChange` is called when what is chosen changes; `onKeyNeeded` when the API wants a key. */
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
      input.value = ""; // the same file may be chosen again
    });
    this.start.addEventListener("change", () => this.typed());
    this.playButton.addEventListener("click", () => this.togglePlay());
    const zoom = find<HTMLInputElement>(this.element, ".zoom input");
    zoom.addEventListener("input", () => this.slider?.zoom(Number(zoom.value) / 100));
  }

  /** Of the file that is chosen or looked at. */
  get fileId(): string | null {
    return this.lookedAt;
  }

  /** What is chosen; null while there is nothing that could be sent. */
  get choice(): Chosen | null {
    return this.chosen;
  }

  /** Whether what was typed for the window's start is no time, so that nobody knows what is meant. */
  get isUnclear(): boolean {
    return this.chosen !== null && this.start.getAttribute("aria-invalid") === "true";
  }

  /** Take a file, unless it is at fault. */
  async choose(file: File): Promise<void> {
    const turn = this.begin(`Looking at ${file.name}…`);
    try {
      await checkName(this.field, file).catch(unlessNetworkError);
      const fileId = this.files.add(file);
      if (turn === this.turn) this.lookedAt = fileId;
      const sound = await this.files.sound(fileId);
      // What this browser cannot decode, MusicLab perhaps can.
      const duration = sound.duration ?? (await checkContent(this.field, file));
      if (turn !== this.turn) return;
      this.take({ fileId, name: file.name, duration, start: 0 }, sound.samples);
      // The field itself says that no file is chosen, as it is emptied.
      tell(`${this.label}: ${file.name}, ${windowText(0, duration)} is chosen.`);
    } catch (error) {
      if (turn === this.turn) this.refuse(error, file);
    }
  }

  /** Take the file that could not be looked at without a key, if there is one. */
  useKey(): void {
    if (this.keyless) this.choose(this.keyless);
  }

  /** Take what was chosen for an earlier job. */
  async restore(chosen: Chosen): Promise<void> {
    const turn = this.begin(`Looking at ${chosen.name}…`);
    this.lookedAt = chosen.fileId;
    const [file, { samples }] = await Promise.all([
      this.files.get(chosen.fileId),
      this.files.sound(chosen.fileId),
    ]);
    if (turn !== this.turn) return;
    if (file) return this.take(chosen, samples);
    this.settle(`${chosen.name} is no longer in this browser.`);
  }

  private begin(looking: string): number {
    this.clear();
    sayOrHide(find(this.element, ".looking"), looking);
    this.element.setAttribute("aria-busy", "true");
    this.turn += 1;
    return this.turn;
  }

  private clear(): void {
    this.playback?.stop();
    this.slider?.destroy();
    this.slider = null;
    this.chosen = null;
    this.lookedAt = null;
    this.keyless = null;
    this.samples = null;
    this.showChosen(false);
    find(this.element, ".error").hidden = true;
    this.onChange();
  }

  private showChosen(chosen: boolean): void {
    say(find(this.element, ".drop .button span"), chosen ? "Change" : "Choose a file");
    const purpose = chosen ? "change the file" : "choose a file";
    find(this.element, "input[type=file]").setAttribute("aria-label", `${this.label}: ${purpose}`);
    find(this.element, ".kinds").hidden = chosen;
    find(this.element, ".facts").hidden = !chosen;
    find(this.element, ".chosen").hidden = !chosen;
  }

  private settle(outcome = ""): void {
    sayOrHide(find(this.element, ".looking"), outcome);
    this.element.removeAttribute("aria-busy");
  }

  private take(chosen: Chosen, samples: Float32Array<ArrayBuffer> | null): void {
    const { name, duration, start } = chosen;
    this.settle();
    this.chosen = chosen;
    this.samples = samples;
    say(find(this.element, ".name"), name);
    say(find(this.element, ".length"), duration === null ? "" : formatTime(duration, 0));
    this.showChosen(true);
    find(this.element, ".waveform").hidden = samples === null;
    const fixed = samples === null || (duration !== null && duration <= WINDOW_S);
    for (const moving of [".zoom", ".help"]) find(this.element, moving).hidden = fixed;
    find<HTMLInputElement>(this.element, ".zoom input").value = "0";
    this.playButton.hidden = samples === null;
    if (samples) {
      const container = find(this.element, ".waveform");
      this.slider = new WindowSlider(container, this.label, samples, start, (moved) =>
        this.moved(moved),
      );
    }
    this.show(start);
  }

  private note(): string {
    const duration = this.chosen?.duration ?? WINDOW_S;
    if (!this.samples) {
      const reason =
        duration > LONGEST_DRAWN_S
          ? "This track is too long to be drawn and played here"
          : "This browser cannot play this file";
      return `${reason}, but MusicLab can read it. Type where the window starts.`;
    }
    if (duration >= WINDOW_S) return "";
    return `This track is ${duration.toFixed(1)} s long; the rest of the window is silence.`;
  }

  private refuse(error: unknown, file: File): void {
    this.settle();
    const { sentence, advice } = inWords(error);
    if (error instanceof ApiError && error.status === 401) {
      this.keyless = file;
      this.onKeyNeeded();
    }
    say(find(this.element, ".error .sentence"), sentence);
    say(find(this.element, ".error .advice"), advice);
    find(this.element, ".error").hidden = false;
  }

  private typed(): void {
    if (!this.chosen) return;
    const { duration } = this.chosen;
    const start = parseTime(this.start.value);
    this.start.setAttribute("aria-invalid", String(start === null));
    if (start === null) {
      const example = "Type seconds, as 83.5, or minutes and seconds, as 1:23.5.";
      this.object(`${this.start.value} is not a time. ${example}`);
      this.onChange();
      return;
    }
    const fitting = fitStart(start, duration);
    this.moved(fitting);
    this.slider?.moveTo(fitting);
    this.slider?.reveal();
    if (duration !== null && start > fitting + 0.01) {
      this.object(`The window starts at ${formatTime(fitting)} at the latest.`);
    }
  }

  private object(sentence: string): void {
    sayOrHide(find(this.element, ".note"), sentence);
    tell(sentence);
  }

  private moved(start: number): void {
    if (!this.chosen) return;
    this.chosen = { ...this.chosen, start };
    this.playback?.stop();
    this.show(start);
  }

  private show(start: number): void {
    this.start.value = formatTime(start);
    this.start.setAttribute("aria-invalid", "false");
    sayOrHide(find(this.element, ".note"), this.note());
    say(find(this.element, ".end"), endText(start, this.chosen?.duration ?? null));
    this.onChange();
  }

  private async togglePlay(): Promise<void> {
    if (this.playback) return this.playback.stop();
    if (!this.samples || !this.chosen) return;
    const { start } = this.chosen;
    this.playback = await play({
      voices: [cut(this.samples, start, WINDOW_S)],
      heard: 0,
      from: 0,
      onTime: (seconds) => this.slider?.showTime(start + seconds),
      onStop: () => {
        this.playback = null;
        say(this.playButton, "Play window");
        this.slider?.showTime(this.chosen?.start ?? 0);
      },
      onSilence: (sentence) => this.object(sentence),
    });
    if (this.playback) say(this.playButton, "Stop");
  }
}

/** While MusicLab is away a file can be chosen all the same; it is judged when it is sent. */
function unlessNetworkError(error: unknown): void {
  if (!(error instanceof NetworkError)) throw error;
}
