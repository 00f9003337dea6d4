/** What is known of the jobs: the newest snapshot of each, and what may be done with it. No document, no network. */

export const STAGES = [
  { name: "fetch", done: "fetched", failed: "failedFetch", seconds: "secondsFetch" },
  { name: "resize", done: "resized", failed: "failedResize", seconds: "secondsResize" },
  { name: "enhance", done: "enhanced", failed: "failedEnhance", seconds: "secondsEnhance" },
  { name: "store", done: "written", failed: "failedStore", seconds: "secondsStore" },
];

const FINAL = new Set(["completed", "failed", "cancelled"]);

export const isFinal = (status) => FINAL.has(status.status);
export const canCancel = (status) => !isFinal(status);
export const canRetry = (status) => status.status === "stalled" || (isFinal(status) && leavesWork(status));

const leavesWork = (status) => status.status !== "completed" || status.failed > 0;

export class Jobs {
  #byId = new Map();

  get(id) {
    return this.#byId.get(id);
  }

  /** All, newest first. */
  list() {
    return [...this.#byId.values()].sort(byAge);
  }

  /** Take a snapshot, unless one that is as new is known: they come by two ways, HTTP and WebSocket, in any order. */
  accept(status) {
    const known = this.#byId.get(status.id);
    if (known && status.version <= known.version) return false;
    this.#byId.set(status.id, status);
    return true;
  }

  forget(id) {
    this.#byId.delete(id);
  }
}

function byAge(one, other) {
  const [a, b] = [one.createdAt || "", other.createdAt || ""];
  if (a !== b) return a < b ? 1 : -1;
  return one.id < other.id ? 1 : -1;
}
