/** Images of the server as blob: URLs, shared by those who show them and revoked when the last one lets go. */

// Browsers open six connections to a host: thumbnails must leave some for buttons and snapshots.
const MOST_AT_ONCE = 4;

export class Images {
  #entryByUrl = new Map();
  #waiting = [];
  #busy = 0;

  constructor(api) {
    this.api = api;
  }

  /** Resolve to `{ address, blob }`. Every acquire needs one release, also when it fails. */
  acquire(url) {
    let entry = this.#entryByUrl.get(url);
    if (!entry) {
      entry = { users: 0, abort: new AbortController(), address: "" };
      entry.promise = this.#load(url, entry);
      this.#entryByUrl.set(url, entry);
    }
    entry.users += 1;
    return entry.promise;
  }

  release(url) {
    const entry = this.#entryByUrl.get(url);
    if (!entry) return;
    entry.users -= 1;
    if (entry.users > 0) return;
    this.#entryByUrl.delete(url);
    entry.abort.abort();
    if (entry.address) URL.revokeObjectURL(entry.address);
  }

  async #load(url, entry) {
    await this.#turn();
    try {
      entry.abort.signal.throwIfAborted();
      const blob = await this.api.readImage(url, entry.abort.signal);
      entry.abort.signal.throwIfAborted();
      entry.address = URL.createObjectURL(blob);
      return { address: entry.address, blob };
    } finally {
      this.#busy -= 1;
      this.#waiting.shift()?.();
    }
  }

  async #turn() {
    if (this.#busy >= MOST_AT_ONCE) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#busy += 1;
  }
}
