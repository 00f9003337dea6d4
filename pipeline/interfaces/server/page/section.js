/** A part of a job's card that is closed at first, and lists images only once it is opened. */

import { hideControl, make, setHidden, setText, showProblem } from "./dom.js";
import { Listing } from "./listing.js";
import { formatCount } from "./words.js";

export class Section {
  /** What puts images into the body, `{ add(items), clear() }`; set by the owner, since it needs the body. */
  show = null;

  constructor(api, jobId, status, title) {
    this.shown = 0;
    this.listing = new Listing(api, jobId, status, () => this.#render());
    this.count = make("span", { class: "count" });
    this.body = make("div", { class: "section-body" });
    this.wait = make("p", { class: "hint", hidden: true }, "Loading …");
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.button = make("button", { class: "quiet", type: "button", hidden: true, onclick: () => this.listing.more() });
    this.node = make(
      "details",
      { class: `section ${status}`, hidden: true, ontoggle: () => this.#toggle() },
      make("summary", {}, make("span", {}, title), " ", this.count),
      this.body, this.wait, this.problem, this.button,
    );
  }

  /** @param heir  what gets the focus if there is nothing left to list, after a retry that mended all. */
  expect(count, heir) {
    setText(this.count, formatCount(count));
    if (!count) this.node.open = false;
    hideControl(this.node, !count, heir);
    this.listing.expect(count);
    this.#renderFoot();
  }

  /** Let go of everything: the job is gone. */
  close() {
    this.node.open = false;
    this.listing.close();
  }

  #toggle() {
    if (this.node.open) this.listing.open();
    else this.listing.close();
  }

  #render() {
    const { items } = this.listing;
    if (items.length < this.shown) {
      this.show.clear();
      this.shown = 0;
    }
    if (items.length > this.shown) this.show.add(items.slice(this.shown));
    this.shown = items.length;
    this.#renderFoot();
  }

  #renderFoot() {
    const { isLoading, problem, hasMore, left } = this.listing;
    setHidden(this.wait, !isLoading || this.shown > 0);
    showProblem(this.problem, problem);
    setHidden(this.button, !(hasMore || problem));
    setText(this.button, problem ? "Try again" : left ? `Show more (${formatCount(left)} left)` : "Show more");
    // Not `disabled`: that would take the focus away from whoever pressed it.
    this.button.setAttribute("aria-busy", String(isLoading));
  }
}
