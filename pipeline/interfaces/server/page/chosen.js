/** The files that the person has chosen or dropped, before they are sent. */

import { make, setHidden } from "./dom.js";
import { formatBytes, formatCount, formatImages } from "./words.js";

const MOST_LISTED = 4;

export class ChosenFiles {
  #fileByName = new Map();

  /** @param changed called after every change. */
  constructor(node, chooser, changed) {
    Object.assign(this, { node, chooser, changed });
    chooser.addEventListener("change", () => {
      this.add([...chooser.files]);
      chooser.value = ""; // So that the same file can be chosen again after it was taken away.
    });
  }

  get files() {
    return [...this.#fileByName.values()];
  }

  add(files) {
    for (const file of files) this.#fileByName.set(`${file.name} ${file.size} ${file.lastModified}`, file);
    this.#draw();
  }

  clear() {
    this.#fileByName.clear();
    this.#draw();
  }

  #remove(name) {
    this.#fileByName.delete(name);
    this.#draw();
    // The button that was pressed is gone.
    (this.node.querySelector("button") || this.chooser).focus();
  }

  #draw() {
    const entries = [...this.#fileByName];
    const size = this.files.reduce((sum, file) => sum + file.size, 0);
    const rest = entries.length - MOST_LISTED;
    setHidden(this.node, !entries.length);
    this.node.replaceChildren(
      make(
        "p",
        { class: "chosen-head" },
        make("strong", {}, formatImages(entries.length, "file")),
        make("span", { class: "soft" }, formatBytes(size)),
        make("button", { class: "link", type: "button", onclick: () => this.#removeAll() }, "Remove all"),
      ),
      make(
        "ul",
        {},
        ...entries.slice(0, MOST_LISTED).map(([name, file]) =>
          make(
            "li",
            {},
            make("span", { class: "file-name", title: file.name }, file.name),
            make("span", { class: "soft" }, formatBytes(file.size)),
            this.#removeButton(name, file),
          ),
        ),
        rest > 0 ? make("li", { class: "soft" }, `and ${formatCount(rest)} more`) : null,
      ),
    );
    this.changed();
  }

  #removeButton(name, file) {
    const button = make("button", { class: "link", type: "button", "aria-label": `Remove ${file.name}` }, "×");
    button.addEventListener("click", () => this.#remove(name));
    return button;
  }

  #removeAll() {
    this.clear();
    this.chooser.focus();
  }
}
