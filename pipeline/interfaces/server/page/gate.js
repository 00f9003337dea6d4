/** The form that asks for the token, in place of the rest of the page. */

import { tokenIn } from "./api.js";
import { setHidden, setText } from "./dom.js";

const REFUSED = "The server does not accept this token. It may have been started anew, with another one.";

export class Gate {
  /** @param enter called with the token that the person gave. */
  constructor(enter) {
    const find = (id) => document.getElementById(id);
    this.gate = find("gate");
    this.work = find("work");
    this.reason = find("token-reason");
    this.input = find("token");
    find("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = tokenIn(this.input.value);
      if (token) enter(token);
    });
  }

  get isOpen() {
    return !this.work.hidden;
  }

  open() {
    setHidden(this.gate, true);
    setHidden(this.work, false);
    this.input.value = "";
  }

  /** @param wasRefused whether a token was given, and is wrong. */
  close(wasRefused) {
    if (wasRefused) setText(this.reason, REFUSED);
    if (!this.gate.hidden) return; // It is being filled in.
    setHidden(this.work, true);
    setHidden(this.gate, false);
    this.input.focus();
  }
}
