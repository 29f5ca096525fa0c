"use strict";

const POLL_MS = 2000;
const SILENCE_MS = 5000; // the first event comes at once, unless something on the way keeps it
const DONE = ["completed", "failed", "deleted"];
const find = (id) => document.getElementById(id);
let jobId = null;
let stopFollowing = () => {};

/** What the API answers, as an object; its own sentence as an Error if it refuses. */
async function call(path, options = {}) {
  const key = find("key").value;
  const headers = key ? { "X-API-Key": key } : {};
  const answer = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("MusicLab cannot be reached; try again");
  });
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  if (answer.status === 401) find("access").hidden = false;
  const error = new Error(said.detail ?? `MusicLab answered ${answer.status}`);
  error.status = answer.status;
  throw error;
}

function showError(sentence) {
  find("error").textContent = sentence;
  find("error").hidden = !sentence;
}

/** Show a job's status, as the API tells it. */
function show(job) {
  const place = job.queue_position == null ? "" : `, place ${job.queue_position}`;
  const failed = job.status === "failed";
  find("message").textContent = failed ? "Failed" : (job.message ?? "Deleted") + place;
  if (failed) showError(job.message);
  find("progress").value = job.progress ?? 0;
  find("progress").hidden = DONE.includes(job.status);
  find("delete").textContent = DONE.includes(job.status) ? "Delete" : "Cancel";
  find("generate").disabled = !DONE.includes(job.status);
  if (job.status === "completed") {
    const music = `/api/download/${jobId}`;
    find("player").src = music;
    find("download").href = music;
    find("music").hidden = false;
  }
  if (job.status === "deleted") forget();
}

/** Follow a job by its events, or by asking where they do not come. */
function follow(id) {
  jobId = id;
  history.replaceState(null, "", `#${id}`); // a page that is loaded again finds it
  find("job").hidden = false;
  find("music").hidden = true;
  const events = new EventSource(`/api/events/${id}`);
  let timer = setTimeout(poll, SILENCE_MS);
  stopFollowing = () => {
    events.close();
    clearTimeout(timer);
  };
  events.onmessage = (event) => {
    clearTimeout(timer);
    const job = JSON.parse(event.data);
    if (DONE.includes(job.status)) stopFollowing();
    show(job);
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED && jobId === id) poll();
  };

  async function poll() {
    stopFollowing();
    try {
      const job = await call(`/api/status/${id}`);
      if (jobId !== id) return;
      show(job);
      if (DONE.includes(job.status)) return;
    } catch (error) {
      if (jobId !== id) return;
      if (error.status === 404) return forget();
      showError(error.message);
    }
    timer = setTimeout(poll, POLL_MS);
  }
}

function forget() {
  stopFollowing();
  jobId = null;
  history.replaceState(null, "", location.pathname);
  find("player").removeAttribute("src");
  find("player").load();
  find("job").hidden = true;
  find("generate").disabled = false;
}

async function generate(event) {
  event.preventDefault();
  showError("");
  find("generate").disabled = true;
  try {
    const body = new FormData(find("form"));
    const accepted = await call("/api/generate", { method: "POST", body });
    stopFollowing();
    follow(accepted.job_id);
  } catch (error) {
    showError(error.message);
    find("generate").disabled = false;
  }
}

async function remove() {
  try {
    await call(`/api/cleanup/${jobId}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) return showError(error.message);
  }
  showError("");
  forget();
}

/** Say it where music will be late, or not what one hopes for. */
async function look() {
  let sentence = "";
  try {
    const health = await call("/health");
    if (!health.model_loaded) sentence = `No model is ready: ${health.reason}. Jobs wait in the queue.`;
    else if (health.checkpoint === "starter") sentence = "Placeholder weights serve: this is a blend, not a trained model's music.";
    else if (health.codec === "starter") sentence = "A trained model serves with a placeholder codec: expect noise.";
  } catch (error) {
    sentence = error.message;
  }
  if (find("notice").textContent !== sentence) find("notice").textContent = sentence;
  find("notice").hidden = !sentence;
  setTimeout(look, 10000);
}

find("form").addEventListener("submit", generate);
find("delete").addEventListener("click", remove);
if (/^#[0-9a-f]{32}$/.test(location.hash)) follow(location.hash.slice(1));
look();
