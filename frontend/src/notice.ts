/** Says where music will be late, or not what one hopes for. */

import { type Health, health } from "./api";
import { find, sayOrHide, tell } from "./dom";
import { inWords } from "./words";

const LOOK_MS = 10_000;
const AWAY_LOOK_MS = 2_000; // it is told soon that jobs go on

/** Keep saying it. */
export async function keepNoticing(): Promise<void> {
  const notice = find(document, "#notice");
  for (let isOffline = false; ; ) {
    if (!document.hidden) {
      const { said, away } = await look();
      if (said && said !== notice.textContent) tell(said);
      sayOrHide(notice, said);
      isOffline = away;
    }
    await new Promise((resolve) => setTimeout(resolve, isOffline ? AWAY_LOOK_MS : LOOK_MS));
  }
}

async function look(): Promise<{ said: string; away: boolean }> {
  try {
    const told = await health();
    return { said: about(told), away: !told.model_loaded };
  } catch (error) {
    return { said: `${inWords(error).sentence} This page keeps trying.`, away: true };
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
