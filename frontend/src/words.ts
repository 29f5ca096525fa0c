/** Turns errors into text for the user. */

import { adviceFor } from "./advice";
import { ApiError, NetworkError } from "./api";

/** Returns what went wrong, using the API's own message where there is one, and what to do. */
export function describeError(error: unknown): { sentence: string; advice: string } {
  if (error instanceof ApiError) {
    return { sentence: error.message, advice: adviceFor(error.code) };
  }
  if (error instanceof NetworkError) {
    return { sentence: error.message, advice: "Try again once the service is available." };
  }
  return { sentence: `Something went wrong: ${error}`, advice: adviceFor("unexpected") };
}
