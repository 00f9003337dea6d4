/** The list of jobs on the page: a card for each, kept in order, drawn at most once a frame. */

import { setHidden } from "./dom.js";
import { JobCard } from "./jobcard.js";
import { isFinal } from "./jobs.js";

const TICK_MS = 30_000;
const TITLE = document.title;

export class Board {
  #cardById = new Map();
  #stale = new Set();
  #frame = 0;

  /** @param tools  what each card needs, see JobCard. */
  constructor(jobs, tools) {
    Object.assign(this, { jobs, tools });
    this.list = document.getElementById("job-list");
    this.empty = document.getElementById("empty");
    setInterval(() => this.#cardById.forEach((card) => card.tick()), TICK_MS);
  }

  /** Note that a job has changed, came or went: it is drawn in the next frame, however often this is called. */
  invalidate(id) {
    this.#stale.add(id);
    this.refresh();
    // A tab in the background draws no frames, but its title is what one sees of it.
    if (document.hidden) document.title = titleFor(this.jobs.list());
  }

  /** Draw even if there is no job: the empty state shows only once the server has said so. */
  refresh() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** Bring a job into sight and to the keyboard, once it is drawn. */
  reveal(id) {
    requestAnimationFrame(() => {
      const card = this.#cardById.get(id);
      card?.title.focus({ preventScroll: true });
      card?.node.scrollIntoView({ block: "nearest" });
    });
  }

  #draw() {
    this.#frame = 0;
    for (const id of this.#stale) this.#drawJob(id);
    this.#stale.clear();
    const jobs = this.jobs.list();
    this.#order(jobs);
    setHidden(this.empty, jobs.length > 0);
    document.title = titleFor(jobs);
  }

  #drawJob(id) {
    const status = this.jobs.get(id);
    let card = this.#cardById.get(id);
    if (!status) {
      card?.remove();
      this.#cardById.delete(id);
      return;
    }
    if (!card) {
      card = new JobCard(id, this.tools);
      this.#cardById.set(id, card);
    }
    card.update(status);
  }

  // Nodes that stand where they belong are not touched: moving one takes its focus and its scrolling away.
  #order(jobs) {
    let place = this.list.firstElementChild;
    for (const { id } of jobs) {
      const { node } = this.#cardById.get(id);
      if (node === place) place = place.nextElementSibling;
      else this.list.insertBefore(node, place);
    }
  }
}

/** How far the newest job is that runs. */
function titleFor(jobs) {
  const running = jobs.find((status) => !isFinal(status) && status.total !== undefined);
  return running ? `${Math.floor(running.progress || 0)} % · ${TITLE}` : TITLE;
}
