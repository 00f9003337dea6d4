/** The dialog that shows one result beside its original: the pictures, their sizes, the seconds, a download. */

import { hideControl, make, setText, setVariable } from "./dom.js";
import { STAGES } from "./jobs.js";
import { Split } from "./split.js";
import { formatBytes, formatCount, formatPixels, formatSeconds, nameItem } from "./words.js";

const SUFFIX_BY_TYPE = { "image/jpeg": ".jpg", "image/webp": ".webp", "image/avif": ".avif", "image/png": ".png" };

const LOADING = "Loading …";
const NOT_SHOWN = "This browser cannot show this format; the download works.";
const HIDDEN_ORIGINAL =
  "The original cannot be shown: its address has a query, which may be secret and is not shown to anybody.";
const NO_ORIGINAL =
  "The original cannot be shown: its server does not give it to this page, or the browser does not know its format.";

export class Compare {
  #items = [];
  #index = 0;
  #fit = "";
  #held = []; // URLs that this dialog has acquired.
  #turn = 0; // Grows with every item shown: what arrives for an earlier one is dropped.

  constructor(dialog, images) {
    Object.assign(this, { dialog, images });
    this.split = new Split();
    this.#build();
    dialog.addEventListener("close", () => this.#letGo());
    // A click on the backdrop is one on the dialog itself.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  /** @param fit  how the recipe fits an image into the box, if that is known. */
  open(items, index, fit = "") {
    this.#items = items;
    this.#fit = fit;
    this.split.move(50);
    if (!this.dialog.open) this.dialog.showModal();
    this.#show(index);
    this.split.slider.focus();
  }

  #build() {
    const button = (text, label, onclick) =>
      make("button", { class: "quiet", type: "button", "aria-label": label, onclick }, text);
    this.title = make("h2", { id: "compare-title" });
    this.place = make("span", { class: "soft place" });
    this.previous = button("←", "Previous image", () => this.#show(this.#index - 1));
    this.following = button("→", "Next image", () => this.#show(this.#index + 1));
    this.close = button("Close", "Close the comparison", () => this.dialog.close());
    this.zoom = make("button", { class: "quiet", type: "button", "aria-pressed": "false" }, "Actual size");
    this.zoom.addEventListener("click", () => this.#toggleZoom());
    this.download = make("a", { class: "button primary" }, "Download");
    this.note = make("p", { class: "note", role: "status" });
    this.facts = make("dl", { class: "compare-facts" });
    this.times = make("div", { class: "times" });
    this.dialog.append(
      make(
        "div",
        { class: "compare-head" },
        this.title, this.place, this.previous, this.following, this.close,
      ),
      this.split.viewport,
      make("div", { class: "compare-controls" }, this.split.control, this.zoom, this.download),
      this.note,
      make("div", { class: "compare-foot" }, this.facts, this.times),
    );
  }

  async #show(index) {
    this.#letGo();
    const turn = (this.#turn += 1);
    const isCurrent = () => turn === this.#turn;
    this.#index = index;
    const item = this.#items[index];
    setText(this.title, nameItem(item));
    setText(this.place, `${formatCount(index + 1)} of ${formatCount(this.#items.length)}`);
    this.previous.disabled = index === 0;
    this.following.disabled = index === this.#items.length - 1;
    this.split.shape(item.width || 4, item.height || 3, this.#fit || "fill");
    this.split.isComparable = false;
    this.split.control.hidden = false;
    this.#describe(item, null);
    await Promise.all([this.#loadResult(item, isCurrent), this.#loadOriginal(item, isCurrent)]);
  }

  async #loadResult(item, isCurrent) {
    setText(this.note, LOADING);
    this.download.hidden = true;
    try {
      const { address, blob } = await this.#hold(item.resultUrl);
      if (!isCurrent()) return;
      this.split.after.src = address;
      this.download.href = address;
      this.download.download = fileName(item, blob.type);
      this.download.hidden = false;
      await this.split.after.decode();
      if (isCurrent() && this.note.textContent === LOADING) setText(this.note, "");
    } catch (error) {
      if (isCurrent()) setText(this.note, this.download.hidden ? error.message : NOT_SHOWN);
    }
  }

  async #loadOriginal(item, isCurrent) {
    const { before } = this.split;
    try {
      // What is shown of a URL with a query leads to another picture, if to any.
      if (item.urlSha256) throw new Error(HIDDEN_ORIGINAL);
      const address = item.sourceUrl ? (await this.#hold(item.sourceUrl)).address : publicAddress(item.url);
      if (!isCurrent()) return;
      before.src = address;
      await before.decode();
      if (!isCurrent()) return;
      const [columns, rows] = [item.width || before.naturalWidth, item.height || before.naturalHeight];
      this.split.shape(columns, rows, this.#fit || guessFit(item, before));
      this.split.isComparable = true;
      this.#describe(item, before);
    } catch {
      if (!isCurrent()) return;
      before.removeAttribute("src");
      hideControl(this.split.control, true, this.close);
      setText(this.note, item.urlSha256 ? HIDDEN_ORIGINAL : NO_ORIGINAL);
    }
  }

  async #hold(url) {
    if (!url) throw new Error("The server has no file of this image.");
    this.#held.push(url);
    return this.images.acquire(url);
  }

  #letGo() {
    this.#turn += 1;
    for (const image of [this.split.before, this.split.after]) image.removeAttribute("src");
    for (const url of this.#held) this.images.release(url);
    this.#held = [];
  }

  #describe(item, original) {
    const before = original ? formatPixels(original.naturalWidth, original.naturalHeight) : "";
    const after = item.width ? formatPixels(item.width, item.height) : "";
    const share = item.bytesIn ? ` (${Math.round((100 * item.bytesOut) / item.bytesIn)} %)` : "";
    this.facts.replaceChildren(
      ...fact("original", [before, formatBytes(item.bytesIn || 0)].filter(Boolean).join(", ")),
      ...fact("result", `${[after, formatBytes(item.bytesOut || 0)].filter(Boolean).join(", ")}${share}`),
      ...fact("from", item.url || item.key),
    );
    this.times.replaceChildren(...describeSeconds(item.seconds || {}));
  }

  #toggleZoom() {
    const actual = this.zoom.getAttribute("aria-pressed") !== "true";
    this.zoom.setAttribute("aria-pressed", String(actual));
    this.split.isActualSize = actual;
  }
}

const fact = (name, text) => [make("dt", {}, name), make("dd", {}, text)];

/** A bar of the seconds by stage, and the same in words. */
function describeSeconds(seconds) {
  // A stage that the recipe leaves out has no seconds at all, or none that count.
  const stages = STAGES.filter(({ name }) => seconds[name]);
  const bar = make("div", { class: "times-bar", "aria-hidden": "true" });
  const words = make("ul", { class: "times-words", "aria-label": "Seconds by stage" });
  for (const { name } of stages) {
    const piece = make("i", { class: name });
    // As milliseconds: factors of flex that are less than 1 in sum would leave a gap.
    setVariable(piece, "--weight", Math.round(1000 * seconds[name]));
    bar.append(piece);
    words.append(make("li", { class: name }, `${name} `, make("b", {}, formatSeconds(seconds[name]))));
  }
  return stages.length ? [bar, words] : [];
}

/** Without the recipe: what differs in shape was most likely cropped. */
function guessFit(item, original) {
  if (!item.width || !original.naturalHeight) return "fill";
  const [was, is] = [original.naturalWidth / original.naturalHeight, item.width / item.height];
  return Math.abs(Math.log(was / is)) < 0.02 ? "fill" : "cover";
}

function publicAddress(url) {
  if (!/^https?:\/\//i.test(url || "")) throw new Error("no address that a browser opens");
  return url;
}

function fileName(item, type) {
  const suffix = SUFFIX_BY_TYPE[type] || "";
  const stem = nameItem(item).replace(/\.[a-z0-9]{2,5}$/i, "");
  return `${stem || "image"}${suffix}`;
}
