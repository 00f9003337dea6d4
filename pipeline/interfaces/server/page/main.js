/** Wires the page: what the server says goes into Jobs, what changed there is drawn by Board. */

import { Api, ApiError } from "./api.js";
import { Board } from "./board.js";
import { Compare } from "./compare.js";
import { setAttribute, setHidden, setText } from "./dom.js";
import { Follower } from "./follow.js";
import { JobForm } from "./form.js";
import { Gate } from "./gate.js";
import { Images } from "./images.js";
import { Jobs, isFinal } from "./jobs.js";
import { announceStatus } from "./words.js";

const JOBS_A_PAGE = 50;
// Jobs may be started elsewhere, on the command line for example; nobody tells this page of those.
const LIST_EVERY_MS = 15_000;

const find = (id) => document.getElementById(id);
const api = new Api(() => leave(true));
const jobs = new Jobs();
const images = new Images(api);
const compare = new Compare(find("compare"), images);
const board = new Board(jobs, { api, images, compare, changed: followAnew });
const follower = new Follower(() => api.socketUrl, {
  status: (_, status) => take(status),
  connected: onConnected,
  lost: onLost,
  problem: (message) => announce(message),
});
const gate = new Gate((token) => {
  api.token = token;
  enter();
});
const form = new JobForm(api, (id) => {
  announce("The job is accepted.");
  followAnew(id).then(() => board.reveal(id));
});
let limit = JOBS_A_PAGE;

function take(status) {
  const before = jobs.get(status.id);
  if (!jobs.accept(status)) return;
  // The first snapshot of a job that is known from nowhere is no change of its state.
  if (before && before.status !== status.status) announce(announceStatus(status));
  if (isFinal(status)) follower.unfollow(status.id);
  else if (!follower.isFollowing(status.id) || (before && isFinal(before))) subscribeAnew(status.id);
  board.invalidate(status.id);
}

/** After a final status the server sends no more, even if the job goes on: that needs another subscription. */
function subscribeAnew(id) {
  follower.unfollow(id);
  follower.follow(id);
}

/** A job was begun, cancelled or retried here. */
async function followAnew(id) {
  subscribeAnew(id);
  await orDoubt(async () => take(await api.readJob(id)));
  // Its end may have been heard of before this.
  const status = jobs.get(id);
  if (status && isFinal(status)) follower.unfollow(id);
}

function readList() {
  // A job that is begun while the answer is on its way is not in it.
  const known = jobs.list().map(({ id }) => id);
  return orDoubt(async () => {
    const { jobs: list } = await api.listJobs(limit);
    list.forEach(take);
    // A list that is full says nothing of the jobs beyond its end.
    const listed = new Set(list.map(({ id }) => id));
    if (list.length < limit) known.filter((id) => !listed.has(id)).forEach(forget);
    setHidden(find("older"), list.length < limit);
    board.refresh();
  });
}

function forget(id) {
  jobs.forget(id);
  follower.unfollow(id);
  board.invalidate(id);
}

/** Reading in the background: a failure is no news to the person, but tells that the connection may be gone. */
async function orDoubt(read) {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 0) follower.doubt();
  }
}

function onConnected() {
  const notice = find("connection");
  if (!notice.hidden) announce("Connected again.");
  setHidden(notice, true);
  readList();
}

function onLost() {
  const notice = find("connection");
  if (notice.hidden) announce("The connection is lost; reconnecting.");
  setText(notice, "Reconnecting …");
  setHidden(notice, false);
  // A refused token looks like any other end of a WebSocket. This tells, and goes on where only WebSockets are blocked.
  readList();
}

function announce(text) {
  setText(find("announcer"), text);
}

async function enter() {
  gate.open();
  // First a request that tells whether the token is right: a WebSocket that is refused does not say why.
  await readList();
  if (!gate.isOpen) return;
  follower.start();
  await orDoubt(async () => form.recipe.offer(await api.listModels()));
}

function leave(wasRefused) {
  follower.stop();
  compare.dialog.close();
  setHidden(find("connection"), true);
  gate.close(wasRefused);
}

find("older").addEventListener("click", async (event) => {
  limit += JOBS_A_PAGE;
  setAttribute(event.target, "aria-busy", "true");
  await readList();
  setAttribute(event.target, "aria-busy", "false");
});
setInterval(() => !document.hidden && gate.isOpen && readList(), LIST_EVERY_MS);

if (api.hasToken) enter();
else leave(false);
