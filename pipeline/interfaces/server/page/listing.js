/** The images of a job that have one status, page by page, while the job may still be adding to them. */

export const PAGE = 48;

// How long to wait before asking again for images that are counted but not listed yet, and how often.
const PAUSE_MS = 2000;
const TRIES = 5;

export class Listing {
  items = [];
  isLoading = false;
  problem = "";

  #keys = new Set();
  #cursor = null; // What the last page was asked with: more may come onto that page later.
  #next = null;
  #expected = 0;
  #tries = TRIES;
  #timer = 0;
  #isOpen = false;
  #epoch = 0; // Grows whenever all is forgotten: a page that was asked for before belongs to nothing.
  #isDry = false; // The server had no more when it was asked last, whatever the count says.

  /** @param changed called after every change of what is public here. */
  constructor(api, jobId, status, changed) {
    Object.assign(this, { api, jobId, status, changed });
  }

  /** How many images are counted but not shown. */
  get left() {
    return Math.max(0, this.#expected - this.items.length);
  }

  /** Whether a press of "show more" would help. */
  get hasMore() {
    return this.#next !== null || (this.items.length >= PAGE && this.left > 0 && !this.#isDry);
  }

  open() {
    this.#isOpen = true;
    this.more();
  }

  close() {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.#forget();
    this.changed();
  }

  /** Take the count of a snapshot; the first page fills up by itself, later ones on request. */
  expect(count) {
    if (count === this.#expected) return;
    this.#expected = count;
    this.#tries = TRIES;
    this.#isDry = false;
    // A retry takes images away from the failed ones.
    if (count < this.items.length) this.#forget();
    this.#fillLater();
  }

  async more() {
    if (this.isLoading) return;
    this.isLoading = true;
    this.problem = "";
    this.changed();
    const epoch = this.#epoch;
    let problem = "";
    try {
      await this.#readPage(epoch);
    } catch (error) {
      problem = error.message;
    }
    if (epoch !== this.#epoch) return;
    this.isLoading = false;
    this.problem = problem;
    this.changed();
    if (!problem) this.#fillLater();
  }

  async #readPage(epoch, mayRestart = true) {
    const cursor = this.#next ?? this.#cursor;
    const page = await this.api.listItems(this.jobId, this.status, PAGE, cursor);
    if (epoch !== this.#epoch) return;
    const unseen = page.items.filter((item) => !this.#keys.has(item.key));
    for (const item of unseen) this.#keys.add(item.key);
    this.items = [...this.items, ...unseen];
    this.#cursor = cursor;
    this.#next = page.next ?? null;
    this.#isDry = !unseen.length && this.#next === null;
    if (unseen.length) return;
    if (this.#next !== null) await this.#readPage(epoch, mayRestart);
    else if (cursor !== null && this.left && mayRestart) {
      // Pages are in the order of the keys: what came later may stand on an earlier page.
      this.#cursor = null;
      await this.#readPage(epoch, false);
    }
  }

  #fillLater() {
    clearTimeout(this.#timer);
    if (!this.#isOpen || !this.left || this.hasMore || this.#tries <= 0) return;
    this.#timer = setTimeout(() => this.#fill(), PAUSE_MS);
  }

  async #fill() {
    this.#tries -= 1;
    await this.more();
    // Nobody asked for this page: while there are tries, a failure of it is no news.
    if (!this.problem || this.#tries <= 0) return;
    this.problem = "";
    this.changed();
    this.#fillLater();
  }

  #forget() {
    this.#epoch += 1;
    this.isLoading = false;
    this.items = [];
    this.#keys.clear();
    this.#cursor = this.#next = null;
  }
}
