/** The bars of a job: one for all of it, and one for each stage. */

import { make, setAttribute, setHidden, setText, setVariable } from "./dom.js";
import { STAGES, isFinal } from "./jobs.js";
import { formatCount, formatSeconds } from "./words.js";

/** One bar of several colours; for a screen reader a progressbar with a name. */
class Bar {
  constructor(label, parts) {
    this.parts = parts.map((name) => make("i", { class: name }));
    this.node = make(
      "div",
      { class: "bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
      ...this.parts,
    );
  }

  /** @param total  undefined while it is not known: then the bar says only that something goes on. */
  update(values, total, isRunning) {
    const isKnown = total !== undefined;
    const share = (value) => (total ? Math.min(1, Math.max(0, value / total)) : 0);
    this.parts.forEach((part, index) => setVariable(part, "--share", share(values[index]).toFixed(4)));
    const done = values.reduce((sum, value) => sum + value, 0);
    // Whole percents: a screen reader is told a hundred times at most.
    setAttribute(this.node, "aria-valuenow", isKnown ? Math.floor(100 * (total ? share(done) : 1)) : null);
    this.node.classList.toggle("unknown", !isKnown && isRunning);
  }
}

export class OverallBar {
  constructor() {
    this.bar = new Bar("All stages", ["stored", "skipped", "failed"]);
    this.node = this.bar.node;
  }

  update(status) {
    this.bar.update([status.stored || 0, status.skipped || 0, status.failed || 0], status.total, !isFinal(status));
  }
}

export class StageBars {
  constructor() {
    this.rows = STAGES.map((stage) => new StageRow(stage));
    this.node = make("ul", { class: "stages", "aria-label": "Stages" }, ...this.rows.map((row) => row.node));
  }

  update(status) {
    for (const row of this.rows) row.update(status);
  }
}

class StageRow {
  constructor(stage) {
    this.stage = stage;
    this.bar = new Bar(stage.name, [stage.name, "failed"]);
    this.count = make("span", { class: "stage-count" });
    this.pace = make("span", { class: "soft" });
    this.failed = make("span", { class: "stage-failed" });
    this.node = make(
      "li",
      {},
      make("span", { class: "stage-head" }, make("span", { class: `stage-tag ${stage.name}` }, stage.name), this.count),
      this.bar.node,
      make("span", { class: "stage-foot" }, this.pace, this.failed),
    );
  }

  update(status) {
    const { stage } = this;
    const done = status[stage.done];
    setHidden(this.node, done === undefined); // A recipe without enhancement has no such stage.
    if (done === undefined) return;
    const failed = status[stage.failed] || 0;
    // What failed in another stage has left this one too: only its own failures are red.
    const own = Math.min(failed, done);
    this.bar.update([done - own, own], status.total, !isFinal(status));
    setText(this.count, formatCount(done));
    setText(this.failed, failed ? `${formatCount(failed)} failed` : "");
    const seconds = status[stage.seconds];
    setText(this.pace, seconds && done ? `${formatSeconds(seconds / done)} each` : "");
  }
}
