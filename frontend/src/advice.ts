/** Suggested actions by error code: codes of the API and two client-side codes. */

const SMALLER = "Trim the track to the part you need, or save it as MP3 or M4A.";
const OTHER_FILE = "Choose another file, or export this one again with an audio editor.";
const AGAIN = "Try again. If the problem persists, contact your MusicLab administrator.";

export const ADVICE: Record<string, string> = {
  unsupported_format: "Choose a file in one of these formats, or convert this one.",
  empty_file: "Choose another file.",
  file_too_large: SMALLER,
  request_too_large: SMALLER,
  too_slow: SMALLER,
  not_audio: OTHER_FILE,
  window_past_end: "Move the window to an earlier position, then generate again.",
  unauthorized:
    "Get an API key from your MusicLab administrator, and enter it above the Generate button.",
  too_many_requests: "Nothing is lost: wait a moment, then try again.",
  queue_full: "Nothing is lost: wait a moment, then try again.",
  storage_full: "Delete music that you no longer need, or try again later.",
  upload_timeout: "Check your connection, then try again.",
  broke_off: "Check your connection, then try again.",
  lost: "Choose the tracks again.",
  model_not_loaded: "Try again: a different model version is now loaded.",
};

export function adviceFor(code: string): string {
  return ADVICE[code] ?? AGAIN;
}
