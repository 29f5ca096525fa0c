/** Shows a notice while the service is unavailable or runs with untrained weights. */

import { type Health, health } from "./api";
import { announce, find, setTextOrHide } from "./dom";
import { describeError } from "./words";

const POLL_MS = 10_000;
const UNAVAILABLE_POLL_MS = 2_000; // shorter, so that the page notices a recovery quickly

/** Polls the health endpoint and updates the notice; never returns. */
export async function watchHealth(): Promise<void> {
  const notice = find(document, "#notice");
  for (let isUnavailable = false; ; ) {
    if (!document.hidden) {
      const { text, unavailable } = await checkHealth();
      if (text && text !== notice.textContent) announce(text);
      setTextOrHide(notice, text);
      isUnavailable = unavailable;
    }
    const delay = isUnavailable ? UNAVAILABLE_POLL_MS : POLL_MS;
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

async function checkHealth(): Promise<{ text: string; unavailable: boolean }> {
  try {
    const current = await health();
    return { text: noticeFor(current), unavailable: !current.model_loaded };
  } catch (error) {
    return { text: `${describeError(error).sentence} Retrying automatically.`, unavailable: true };
  }
}

function noticeFor({ model_loaded, reason, checkpoint, codec }: Health): string {
  if (!model_loaded) return `No model is available: ${reason}. Jobs will wait in the queue.`;
  if (checkpoint === "starter") {
    return "No trained model is loaded yet: the music is only a blend of both tracks.";
  }
  if (codec === "starter") return "The model is trained, but its codec is not: expect noise.";
  return "";
}
