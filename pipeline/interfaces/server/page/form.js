/** The form for a new job: URLs, files, a recipe. */

import { ChosenFiles } from "./chosen.js";
import { acceptDrops } from "./drop.js";
import { setText, showProblem } from "./dom.js";
import { RecipeFields } from "./recipe.js";
import { formatImages } from "./words.js";

export class JobForm {
  #isBusy = false;

  /**
   * @param api      Api
   * @param started  called with the id of each job that the server has taken
   */
  constructor(api, started) {
    Object.assign(this, { api, started });
    const find = (id) => document.getElementById(id);
    this.form = find("job-form");
    this.urls = find("urls");
    this.submit = find("submit");
    this.problem = find("form-problem");
    this.recipe = new RecipeFields(this.form);
    this.chosen = new ChosenFiles(find("chosen"), find("files"), () => this.#nameButton());
    this.urls.addEventListener("input", () => this.#nameButton());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    // In a text of several lines Enter is a new line.
    this.urls.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    acceptDrops(find("drop-veil"), () => !find("work").hidden, (images, leftOut) => this.#takeDropped(images, leftOut));
    this.#nameButton();
  }

  get #urlList() {
    return this.urls.value.split("\n").map((line) => line.trim()).filter(Boolean);
  }

  #takeDropped(images, leftOut) {
    this.chosen.add(images);
    const verb = leftOut === 1 ? "is no image and was" : "are no images and were";
    showProblem(this.problem, leftOut ? `${formatImages(leftOut, "file")} ${verb} left out.` : "");
  }

  #nameButton() {
    if (this.#isBusy) return;
    const [urls, files] = [this.#urlList.length, this.chosen.files.length];
    const names = [urls && formatImages(urls, "URL"), files && formatImages(files, "file")].filter(Boolean);
    setText(this.submit, names.length ? `Process ${names.join(" and ")}` : "Process images");
  }

  async #send() {
    if (this.#isBusy) return;
    const [urls, files] = [this.#urlList, this.chosen.files];
    if (!urls.length && !files.length) {
      showProblem(this.problem, "Paste at least one URL, or choose an image.");
      this.urls.focus();
      return;
    }
    showProblem(this.problem, "");
    this.#isBusy = true;
    this.submit.setAttribute("aria-busy", "true");
    try {
      // Two jobs, if there are both. What the server has taken leaves the form; what it has refused stays.
      if (urls.length) {
        setText(this.submit, "Sending …");
        const { jobId } = await this.api.submitUrls(urls, this.recipe.options);
        this.urls.value = "";
        this.started(jobId);
      }
      if (files.length) {
        const tell = (share) => setText(this.submit, `Uploading … ${Math.floor(100 * share)} %`);
        tell(0);
        const { jobId } = await this.api.submitFiles(files, this.recipe.options, tell);
        this.chosen.clear();
        this.started(jobId);
      }
    } catch (error) {
      const wait = error.retryAfter_s ? ` (try again in ${error.retryAfter_s} s)` : "";
      showProblem(this.problem, `${error.message}${wait}`);
    }
    this.#isBusy = false;
    this.submit.setAttribute("aria-busy", "false");
    this.#nameButton();
  }
}
