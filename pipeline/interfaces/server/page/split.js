/** Two images on each other, and the line between them: dragged on the picture, or moved by a slider. */

import { make, setVariable } from "./dom.js";

export class Split {
  constructor() {
    this.before = make("img", { class: "before", alt: "The original", referrerpolicy: "no-referrer" });
    this.after = make("img", { class: "after", alt: "The result" });
    this.handle = make("span", { class: "handle", "aria-hidden": "true" });
    this.frame = make(
      "div",
      { class: "split" },
      this.before, this.after, this.handle,
      make("span", { class: "side left", "aria-hidden": "true" }, "original"),
      make("span", { class: "side right", "aria-hidden": "true" }, "result"),
    );
    this.viewport = make("div", { class: "split-viewport" }, this.frame);
    this.slider = make("input", {
      type: "range", min: 0, max: 100, value: 50,
      "aria-label": "Where the original ends and the result begins",
    });
    this.control = make(
      "label",
      { class: "split-control" },
      make("span", { "aria-hidden": "true" }, "original"),
      this.slider,
      make("span", { "aria-hidden": "true" }, "result"),
    );
    this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
    this.#listenToPointer();
    this.move(50);
  }

  /** Put the line at a percentage of the width. */
  move(percent) {
    const place = Math.min(100, Math.max(0, percent));
    setVariable(this.frame, "--split", `${place}%`);
    this.slider.value = Math.round(place);
    this.slider.setAttribute("aria-valuetext", `${Math.round(place)} percent original`);
  }

  /** Show pixel for pixel, with scrolling, or the whole image. */
  set isActualSize(actual) {
    this.viewport.classList.toggle("actual-size", actual);
  }

  /** Give the frame the result's shape: the original is laid into the same box as the recipe laid the image. */
  shape(columns, rows, fit) {
    setVariable(this.frame, "--columns", columns);
    setVariable(this.frame, "--rows", rows);
    this.before.dataset.fit = fit;
  }

  /** Whether there is an original to compare with, yet; without one only the result is shown. */
  set isComparable(comparable) {
    this.frame.classList.toggle("alone", !comparable);
  }

  #listenToPointer() {
    const follow = (event) => {
      const box = this.frame.getBoundingClientRect();
      this.move((100 * (event.clientX - box.left)) / box.width);
    };
    this.frame.addEventListener("pointerdown", (event) => {
      // At actual size a finger scrolls the picture; there only the handle moves the line.
      const isScrolling = this.viewport.classList.contains("actual-size") && event.pointerType === "touch";
      if (event.button !== 0 || (isScrolling && event.target !== this.handle)) return;
      event.preventDefault(); // Or the browser would drag the picture away.
      this.frame.setPointerCapture(event.pointerId);
      follow(event);
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (this.frame.hasPointerCapture(event.pointerId)) follow(event);
    });
  }
}
