/** The server's HTTP interface and the token that it wants. Every address is relative to the page's. */

const NO_ANSWER = "The server does not answer. Is `pipeline serve` still running?";
const LOGGED_OUT = "The way to the server, Jupyter for example, asks for a login: reload this page.";

// Such a proxy has its own ideas of who may come: a token of ours would only confuse it.
const IS_TOKEN_ADDED = document.documentElement.dataset.token === "added-by-proxy";

// Pages behind one proxy share one storage: the path tells their servers apart.
const TOKEN_KEY = `image-pipeline-token:${new URL(".", document.baseURI).pathname}`;

/** What the server, or the way to it, refused; `message` is fit to be shown. */
export class ApiError extends Error {
  constructor(message, status = 0, retryAfter_s = 0) {
    super(message);
    this.status = status;
    this.retryAfter_s = retryAfter_s;
  }
}

export class Api {
  #token = "";

  /** @param onUnauthorized called whenever the server does not accept the token. */
  constructor(onUnauthorized) {
    this.onUnauthorized = onUnauthorized;
    const given = takeTokenFromAddress();
    if (IS_TOKEN_ADDED) return;
    if (given) write(TOKEN_KEY, given);
    this.#token = given || read(TOKEN_KEY);
  }

  get hasToken() {
    return IS_TOKEN_ADDED || Boolean(this.#token);
  }

  set token(token) {
    this.#token = token;
    write(TOKEN_KEY, token);
  }

  listJobs = (limit) => this.#ask(`jobs?limit=${limit}`);
  readJob = (id) => this.#ask(`jobs/${encodeURIComponent(id)}`);
  cancelJob = (id) => this.#ask(`jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
  retryJob = (id) => this.#ask(`jobs/${encodeURIComponent(id)}/retry`, { method: "POST" });
  listModels = () => this.#ask("models");

  listItems(id, status, limit, after) {
    const query = new URLSearchParams({ status, limit });
    if (after) query.set("after", after);
    return this.#ask(`jobs/${encodeURIComponent(id)}/items?${query}`);
  }

  submitUrls(urls, options) {
    const body = JSON.stringify({ imageUrls: urls, options });
    return this.#ask("jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  }

  /** Upload files; `onProgress` is called with 0 to 1. That is why not fetch(): it does not tell how much is sent. */
  submitFiles(files, options, onProgress) {
    const form = new FormData();
    form.append("options", JSON.stringify(options));
    for (const file of files) form.append("files", file, file.name);
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", new URL("jobs", document.baseURI));
      for (const [name, value] of Object.entries(this.#authorization)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
      request.onerror = () => reject(new ApiError("The upload broke off: the server went away, or refused its size."));
      request.onload = () => {
        const answer = parse(request.responseText);
        if (request.status < 300) resolve(answer);
        else reject(this.#refusal(request.status, answer, request.getResponseHeader("Retry-After")));
      };
      request.send(form);
    });
  }

  /** Read an image of this server, which an <img> cannot: it sends no Authorization. */
  async readImage(url, signal) {
    const response = await this.#fetch(url, { signal });
    return response.blob();
  }

  /** The WebSocket's address. A browser's WebSocket cannot send headers, so the token goes into the query. */
  get socketUrl() {
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#token) url.searchParams.set("token", this.#token);
    return url;
  }

  get #authorization() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  async #ask(path, init) {
    const response = await this.#fetch(path, init);
    return parse(await response.text());
  }

  async #fetch(path, init = {}) {
    const headers = { ...init.headers, ...this.#authorization };
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), { ...init, headers, redirect: "manual" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(NO_ANSWER);
    }
    if (response.ok) return response;
    if (response.type === "opaqueredirect") throw new ApiError(LOGGED_OUT, 401);
    throw this.#refusal(response.status, parse(await response.text()), response.headers.get("Retry-After"));
  }

  #refusal(status, answer, retryAfter) {
    if (status === 401) this.onUnauthorized();
    const message = answer?.error || `The server answered ${status} without saying why.`;
    return new ApiError(message, status, Number(retryAfter) || 0);
  }
}

/** The token in a link, or the text itself if it is no link. */
export function tokenIn(text) {
  const match = /[?&]token=([^&#\s]+)/.exec(text);
  return match ? decodeURIComponent(match[1]) : text.trim();
}

// A token in the address bar ends up in screenshots, bookmarks and histories.
function takeTokenFromAddress() {
  const url = new URL(location.href);
  const token = url.searchParams.get("token") || "";
  if (url.searchParams.has("token")) {
    url.searchParams.delete("token");
    history.replaceState(history.state, "", url);
  }
  return token;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // A proxy's error page, for example: the status says enough.
  }
}

// Storage may be forbidden; then the token lives as long as the page.
function read(key) {
  try {
    return sessionStorage.getItem(key) || "";
  } catch {
    return "";
  }
}

function write(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // See above.
  }
}
