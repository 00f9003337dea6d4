/** The failed images of a job, in groups that one remedy mends. */

import { make, setText } from "./dom.js";
import { formatImages } from "./words.js";

const NO_REMEDY = "The pipeline does not know this error: please report it.";

export class Failures {
  #groupByName = new Map();

  /** @param counts  () => the job's number of images by class of error: more than are listed yet. */
  constructor(body, counts) {
    Object.assign(this, { body, counts });
  }

  add(items) {
    for (const item of items) {
      const group = this.#group(item);
      group.list.append(describeFailure(item));
      group.shown += 1;
    }
    for (const group of this.#groupByName.values()) {
      const counted = group.isAlone ? this.counts()[group.error] || 0 : 0;
      setText(group.count, formatImages(Math.max(counted, group.shown)));
    }
  }

  clear() {
    this.#groupByName.clear();
    this.body.replaceChildren();
  }

  #group(item) {
    const name = `${item.stage} ${item.error}`;
    if (!this.#groupByName.has(name)) this.#groupByName.set(name, this.#newGroup(item));
    return this.#groupByName.get(name);
  }

  #newGroup(item) {
    // The job counts by error, not by stage: its count is this group's only if no other group has the same error.
    const twins = [...this.#groupByName.values()].filter((group) => group.error === item.error);
    for (const twin of twins) twin.isAlone = false;
    const count = make("span", { class: "soft" });
    const list = make("ul", { class: "failure-list" });
    this.body.append(
      make(
        "section",
        { class: "failure-group" },
        make(
          "h4",
          {},
          make("span", { class: `stage-tag ${item.stage || ""}` }, item.stage || "run"),
          make("span", {}, item.error || "Error"),
          count,
        ),
        make("p", { class: "remedy" }, make("strong", {}, "What to do: "), item.remedy || NO_REMEDY),
        list,
      ),
    );
    return { error: item.error, isAlone: !twins.length, shown: 0, count, list };
  }
}

function describeFailure(item) {
  const subject = item.url || item.key;
  // Messages name what they are about; saying it twice helps nobody.
  const isNamed = (item.message || "").includes(subject);
  return make(
    "li",
    {},
    isNamed ? null : make("code", {}, subject),
    make("span", { class: "message" }, item.message || "no message"),
    item.attempts > 1 ? make("span", { class: "soft" }, `tried ${item.attempts} times`) : null,
  );
}
