/** Errors as people read them. */

import { adviceFor } from "./advice";
import { Away, Refusal } from "./api";

/** What went wrong, in the API's words, and what to do. */
export function inWords(error: unknown): { sentence: string; advice: string } {
  if (error instanceof Refusal) {
    return { sentence: error.message, advice: adviceFor(error.code) };
  }
  if (error instanceof Away) {
    return { sentence: error.message, advice: "Try again when it is back." };
  }
  return { sentence: `This did not work: ${error}`, advice: adviceFor("unexpected") };
}
