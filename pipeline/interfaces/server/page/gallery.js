/** The results of a job: a grid of thumbnails, each loaded when it comes into sight. */

import { make } from "./dom.js";
import { formatBytes, formatPixels, nameItem } from "./words.js";

const NEARLY_IN_SIGHT = "300px";

export class Gallery {
  #itemByTile = new Map();
  #urls = [];
  #items = [];

  /**
   * @param images  Images
   * @param compare  (items, index) => void opens one of the items before and after
   */
  constructor(body, images, compare) {
    Object.assign(this, { images, compare });
    this.grid = make("ul", { class: "gallery" });
    body.append(this.grid);
    this.sight = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: NEARLY_IN_SIGHT });
  }

  add(items) {
    const tiles = items.map((item) => this.#tile(item, this.#items.push(item) - 1));
    this.grid.append(...tiles);
  }

  clear() {
    this.sight.disconnect();
    this.#itemByTile.clear();
    for (const url of this.#urls) this.images.release(url);
    this.#urls = [];
    this.#items = [];
    this.grid.replaceChildren();
  }

  #tile(item, index) {
    const size = item.width ? formatPixels(item.width, item.height) : "";
    const frame = make("span", { class: "thumbnail" });
    const tile = make(
      "button",
      { type: "button", class: "tile", "aria-label": `Compare ${nameItem(item)}, before and after`, title: item.key },
      frame,
      make("span", { class: "tile-name" }, nameItem(item)),
      make("span", { class: "tile-facts" }, [size, formatBytes(item.bytesOut || 0)].filter(Boolean).join(" · ")),
    );
    tile.addEventListener("click", () => this.compare(this.#items, index));
    this.#itemByTile.set(tile, item);
    this.sight.observe(tile);
    return make("li", {}, tile);
  }

  #see(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.sight.unobserve(target);
      this.#load(target.querySelector(".thumbnail"), this.#itemByTile.get(target));
    }
  }

  async #load(frame, item) {
    if (!item?.resultUrl) return frame.classList.add("broken");
    this.#urls.push(item.resultUrl);
    try {
      const { address } = await this.images.acquire(item.resultUrl);
      const picture = make("img", { src: address, alt: "", decoding: "async" });
      // A format that this browser does not know, AVIF for example, can still be downloaded.
      picture.addEventListener("error", () => frame.classList.add("broken"));
      picture.addEventListener("load", () => frame.classList.add("loaded"));
      frame.append(picture);
    } catch {
      frame.classList.add("broken");
    }
  }
}
