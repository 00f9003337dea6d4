/** The form's recipe: what it says, and what each choice means. */

import { make, setText } from "./dom.js";

const FITS = {
  inside: "The whole image, its aspect kept, at most as large as the box.",
  cover: "Fills the box; what sticks out is cropped, centred.",
  contain: "The whole image on a white canvas of the box's size.",
  fill: "Stretched to the box, whatever that does to the aspect.",
};
const NO_MODEL = "Images are only scaled and encoded.";

export class RecipeFields {
  #modelByName = new Map();

  constructor(form) {
    this.form = form;
    const field = (id) => form.querySelector(`#${id}`);
    this.width = field("max-width");
    this.height = field("max-height");
    this.format = field("format");
    this.quality = field("quality");
    this.qualityValue = field("quality-value");
    this.enhance = field("enhance");
    this.fitHint = field("fit-hint");
    this.enhanceHint = field("enhance-hint");
    form.addEventListener("input", () => this.#explain());
    this.#explain();
  }

  /** Offer what `GET models` answered; what is chosen already stays. */
  offer({ models, default: preferred }) {
    const chosen = this.#modelByName.size ? this.enhance.value : preferred;
    this.#modelByName = new Map(models.map((model) => [model.name, model]));
    const title = ({ name, scale }) => (scale > 1 ? `${name} (${scale}×)` : name);
    const options = models.map((model) => make("option", { value: model.name }, title(model)));
    this.enhance.replaceChildren(...options, make("option", { value: "none" }, "nothing"));
    this.enhance.value = this.#modelByName.has(chosen) ? chosen : "none";
    this.#explain();
  }

  /** The options as the server wants them; whether they are allowed is for the server to say. */
  get options() {
    return {
      maxWidth: Number(this.width.value),
      maxHeight: Number(this.height.value),
      fit: this.#fit,
      format: this.format.value,
      quality: Number(this.quality.value),
      enhance: this.enhance.value,
    };
  }

  get #fit() {
    return this.form.querySelector("input[name=fit]:checked").value;
  }

  #explain() {
    setText(this.fitHint, FITS[this.#fit]);
    const isLossless = this.format.value === "png";
    this.quality.disabled = isLossless;
    setText(this.qualityValue, isLossless ? "lossless" : this.quality.value);
    const model = this.#modelByName.get(this.enhance.value);
    setText(this.enhanceHint, model ? sentence(model) : NO_MODEL);
  }
}

function sentence({ description, figures }) {
  const texts = [description, figures].filter(Boolean);
  return texts.map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`).join(" ");
}
