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
    return this.#next !== null || (this.items.length >= PAGE && this.left > 0);
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
    if (!this.#isOpen) return;
    // A retry takes images away from the failed ones.
    if (count < this.items.length) this.#forget();
    this.#fillLater();
  }

  async more() {
    if (this.isLoading) return;
    this.isLoading = true;
    this.problem = "";
    this.changed();
    try {
      await this.#readPage();
    } catch (error) {
      this.problem = error.message;
    }
    this.isLoading = false;
    this.changed();
    if (this.#isOpen && !this.problem) this.#fillLater();
  }

  async #readPage() {
    const cursor = this.#next ?? this.#cursor;
    const page = await this.api.listItems(this.jobId, this.status, PAGE, cursor);
    if (!this.#isOpen) return;
    const unseen = page.items.filter((item) => !this.#keys.has(item.key));
    for (const item of unseen) this.#keys.add(item.key);
    this.items = [...this.items, ...unseen];
    this.#cursor = cursor;
    this.#next = page.next ?? null;
    if (!unseen.length && this.#next !== null) await this.#readPage();
  }

  #fillLater() {
    clearTimeout(this.#timer);
    if (!this.left || this.hasMore || this.#tries <= 0) return;
    this.#timer = setTimeout(() => {
      this.#tries -= 1;
      this.more();
    }, PAUSE_MS);
  }

  #forget() {
    this.items = [];
    this.#keys.clear();
    this.#cursor = this.#next = null;
  }
}
