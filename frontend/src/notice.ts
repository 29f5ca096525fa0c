/** Says where music will be late, or not what one hopes for. */

import { type Health, health } from "./api";
import { find, sayOrHide, tell } from "./dom";
import { inWords } from "./words";

const LOOK_MS = 10_000;

/** Keep saying it. */
export async function keepNoticing(): Promise<void> {
  const notice = find(document, "#notice");
  for (;;) {
    if (!document.hidden) {
      const said = await sentence();
      if (said && said !== notice.textContent) tell(said);
      sayOrHide(notice, said);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function sentence(): Promise<string> {
  try {
    return about(await health());
  } catch (error) {
    return `${inWords(error).sentence} This page keeps trying.`;
  }
}

function about({ model_loaded, reason, checkpoint, codec }: Health): string {
  if (!model_loaded) return `No model is ready: ${reason}. Jobs wait in the queue.`;
  if (checkpoint === "starter") {
    return "No trained model serves yet: what you hear is only a blend of both tracks.";
  }
  if (codec === "starter")
    return "A trained model serves, but with an untrained codec: expect noise.";
  return "";
}
