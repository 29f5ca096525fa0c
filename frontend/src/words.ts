/** Errors as people read them. */

import { adviceFor } from "./advice";
import { ApiError, NetworkError } from "./api";

/** What went wrong, in the API's words, and what to do. */
export function inWords(error: unknown): { sentence: string; advice: string } {
  if (error instanceof ApiError) {
    return { sentence: error.message, advice: adviceFor(error.code) };
  }
  if (error instanceof NetworkError) {
    return { sentence: error.message, advice: "Try again when it is back." };
  }
  return { sentence: `This did not work: ${error}`, advice: adviceFor("unexpected") };
}
