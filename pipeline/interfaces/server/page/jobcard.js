/** One job of the list: its state, its bars, what may be done with it, its failures and its results. */

import { hideControl, make, setAttribute, setHidden, setText, showProblem } from "./dom.js";
import { Failures } from "./failures.js";
import { Gallery } from "./gallery.js";
import { canCancel, canRetry, isFinal } from "./jobs.js";
import { Section } from "./section.js";
import { OverallBar, StageBars } from "./stagebars.js";
import {
  describeRecipe, explainStatus, formatAgo, formatBytes, formatCount, formatImages, formatRate, formatSeconds, nameJob,
} from "./words.js";

// In the order in which they stand.
const FACTS = ["rate", "left", "elapsed", "failed", "skipped", "bytes"];

export class JobCard {
  #status = null;

  /** @param tools  { api, images, compare, changed(jobId) }: what a card needs of the page. */
  constructor(id, tools) {
    Object.assign(this, { id, tools });
    this.overall = new OverallBar();
    this.stages = new StageBars();
    this.failures = new Section(tools.api, id, "failed", "What failed, and what to do");
    this.failures.show = new Failures(this.failures.body, () => this.#status?.errors || {});
    this.results = new Section(tools.api, id, "stored", "Results");
    this.results.show = new Gallery(this.results.body, tools.images, (items, index) =>
      tools.compare.open(items, index, this.#status?.fit),
    );
    this.#build();
  }

  #build() {
    const titleId = `title-${this.id}`;
    this.title = make("h3", { id: titleId, tabindex: -1 });
    this.chip = make("span", { class: "chip" });
    this.when = make("time");
    this.recipe = make("span");
    this.note = make("p", { class: "note" });
    this.error = make("p", { class: "problem" });
    this.count = make("span", { class: "job-count" });
    this.percent = make("span", { class: "job-percent" });
    this.progress = make("p", { class: "job-progress" }, this.count, this.percent);
    this.facts = FACTS.map((name) => make("li", { class: name, hidden: true }));
    this.cancel = make("button", { class: "quiet", type: "button", onclick: () => this.#cancel() });
    this.retry = make("button", { class: "quiet", type: "button", onclick: () => this.#retry() });
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.node = make(
      "article",
      { class: "job card", "aria-labelledby": titleId },
      make("header", {}, this.title, this.chip),
      make("p", { class: "job-meta" }, make("code", {}, this.id), this.when, this.recipe),
      this.error,
      this.progress,
      this.overall.node,
      this.note,
      this.stages.node,
      make(
        "footer",
        {},
        make("ul", { class: "job-facts" }, ...this.facts),
        make("div", { class: "actions" }, this.cancel, this.retry),
      ),
      this.problem,
      this.failures.node,
      this.results.node,
    );
  }

  update(status) {
    this.#status = status;
    setText(this.title, nameJob(status));
    setAttribute(this.title, "title", nameJob(status));
    setText(this.chip, status.status);
    setAttribute(this.chip, "class", `chip ${status.status}`);
    setAttribute(this.when, "datetime", status.createdAt || null);
    setText(this.recipe, describeRecipe(status));
    this.tick();
    showProblem(this.error, status.error);
    showProblem(this.note, explainStatus(status));
    this.#updateProgress(status);
    this.#updateActions(status);
    this.failures.expect(status.failed || 0, this.title);
    this.results.expect(status.stored || 0, this.title);
  }

  /** Say again how long ago it began. */
  tick() {
    setText(this.when, formatAgo(this.#status?.createdAt));
  }

  /** The job is gone: let go of its images. */
  remove() {
    this.failures.close();
    this.results.close();
    this.node.remove();
  }

  #updateProgress(status) {
    const done = (status.stored || 0) + (status.skipped || 0) + (status.failed || 0);
    const isRunning = !isFinal(status);
    setText(this.count, describeCount(status, done));
    setText(this.percent, status.total === undefined ? "" : `${Math.floor(status.progress || 0)} %`);
    this.overall.update(status);
    this.stages.update(status);
    // A job that failed before its first image has nothing to draw.
    const isBare = !isRunning && !done;
    for (const node of [this.progress, this.overall.node, this.stages.node]) setHidden(node, isBare);
    const bytes = status.bytesIn ? `${formatBytes(status.bytesIn)} in, ${formatBytes(status.bytesOut || 0)} out` : "";
    const elapsed = formatSeconds(status.seconds || 0);
    const texts = [
      status.imagesPerSecond ? formatRate(status.imagesPerSecond) : "",
      isRunning && status.etaSeconds !== undefined ? `${formatSeconds(status.etaSeconds)} left` : "",
      status.seconds ? (isRunning ? `${elapsed} so far` : `took ${elapsed}`) : "",
      status.failed ? `${formatCount(status.failed)} failed` : "",
      status.skipped ? `${formatCount(status.skipped)} skipped` : "",
      bytes,
    ];
    this.facts.forEach((fact, index) => {
      setText(fact, texts[index]);
      setHidden(fact, !texts[index]);
    });
  }

  #updateActions(status) {
    const isCancelling = Boolean(status.cancelRequested);
    setText(this.cancel, isCancelling ? "Cancelling …" : "Cancel");
    setAttribute(this.cancel, "aria-disabled", isCancelling ? "true" : null);
    hideControl(this.cancel, !canCancel(status), this.title);
    const retry = status.status === "completed" ? `Retry ${formatImages(status.failed, "failed image")}` : "Resume";
    setText(this.retry, retry);
    hideControl(this.retry, !canRetry(status), this.title);
  }

  #cancel() {
    if (!this.#status.cancelRequested) this.#act(this.cancel, this.tools.api.cancelJob);
  }

  #retry() {
    this.#act(this.retry, this.tools.api.retryJob);
  }

  async #act(button, ask) {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    showProblem(this.problem, "");
    try {
      await ask(this.id);
      this.tools.changed(this.id);
    } catch (error) {
      showProblem(this.problem, error.message);
    }
    button.setAttribute("aria-busy", "false");
  }
}

function describeCount(status, done) {
  if (status.total === undefined) return done ? `${formatImages(done)} so far` : "";
  return `${formatCount(done)} of ${formatImages(status.total)}`;
}
