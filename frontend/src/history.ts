/** Lists the jobs submitted or opened in this browser. */

import { find, fromTemplate, setText } from "./dom";
import type { Job } from "./store";
import { formatMoment } from "./times";

export class History {
  private readonly element = find(document, "#history");
  private readonly items = new Map<string, HTMLElement>();

  constructor(private readonly onChoose: (key: string) => void) {}

  render(jobs: Job[], shown: Job | null): void {
    this.element.hidden = jobs.length === 0;
    const keys = new Set(jobs.map((job) => job.key));
    for (const [key, item] of this.items) {
      if (keys.has(key)) continue;
      item.remove();
      this.items.delete(key);
    }
    const list = find(this.element, "ul");
    jobs.forEach((job, index) => {
      const item = this.items.get(job.key) ?? this.add(job.key);
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
      setText(
        find(item, ".name"),
        job.tracks?.map(({ name }) => name).join(" + ") ?? "From a link",
      );
      setText(find(item, ".state"), stateOf(job));
      item.dataset.state = styleOf(job);
      find(item, "button").setAttribute("aria-current", String(job.key === shown?.key));
    });
  }

  private add(key: string): HTMLElement {
    const item = fromTemplate("history-item");
    find(item, "button").addEventListener("click", () => this.onChoose(key));
    this.items.set(key, item);
    return item;
  }
}

/** Returns the value of `data-state`, by which the style sheet selects a color. */
function styleOf({ trouble, status }: Job): "ready" | "failed" | "active" {
  if (status?.status === "completed") return "ready";
  return trouble || status?.status === "failed" ? "failed" : "active";
}

function stateOf({ createdAt, jobId, trouble, status }: Job): string {
  const time = formatMoment(new Date(createdAt), new Date());
  if (trouble) return `${time}, not sent`;
  if (jobId === null) return `${time}, uploading`;
  if (status?.status === "completed") return `${time}, ready`;
  if (status?.status === "running") return `${time}, ${status.progress}%`;
  return `${time}, ${status?.status ?? "queued"}`;
}
