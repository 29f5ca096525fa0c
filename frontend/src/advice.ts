/** What to do about an error, by its code: the API's, of which the README tells, and two of ours. */

const SMALLER = "Cut the track to the part that you need, or save it as mp3 or m4a.";
const OTHER_FILE = "Choose another file, or save this one anew with an audio editor.";
const AGAIN = "Try again. If that does not help, tell whoever runs this MusicLab.";

export const ADVICE: Record<string, string> = {
  unsupported_format: "Choose a file of one of these kinds, or convert it to one.",
  empty_file: "Choose another file.",
  file_too_large: SMALLER,
  request_too_large: SMALLER,
  too_slow: SMALLER,
  not_audio: OTHER_FILE,
  window_past_end: "Move the window to an earlier place, and generate again.",
  unauthorized: "Enter the key that whoever runs this MusicLab gave you, above Generate.",
  too_many_requests: "Nothing is lost: wait a moment, then try again.",
  queue_full: "Nothing is lost: wait a moment, then try again.",
  storage_full: "Delete music that you no longer need, or try again later.",
  upload_timeout: "Check your connection, then try again.",
  broke_off: "Check your connection, then try again.",
  lost: "Choose the tracks anew.",
  model_not_loaded: "Try again: another version of the model serves now.",
};

export function adviceFor(code: string): string {
  return ADVICE[code] ?? AGAIN;
}
