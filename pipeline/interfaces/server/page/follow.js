/** The WebSocket: subscriptions that survive its end. It reconnects by itself, as often as it takes. */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;

/** Milliseconds before the next try: doubling, and spread out so that a thousand pages do not come back at once. */
export function delayBefore(attempt, random = Math.random) {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return Math.max(FIRST_DELAY_MS, ceiling * (0.5 + 0.5 * random()));
}

export class Follower {
  #socket = null;
  #timer = 0;
  #attempt = 0;
  #followed = new Set();
  #running = false;

  /**
   * @param address  () => URL of the WebSocket; asked anew for each connection.
   * @param hears    { status(jobId, status), connected(), lost(), problem(message, jobId) }
   */
  constructor(address, hears) {
    this.address = address;
    this.hears = hears;
    // Laptops wake up and networks come back: no reason to wait out the delay then.
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#hurry());
  }

  start() {
    this.#running = true;
    this.#attempt = 0;
    this.#connect();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#drop();
  }

  follow(jobId) {
    this.#followed.add(jobId);
    this.#send({ type: "subscribe", jobId });
  }

  unfollow(jobId) {
    if (this.#followed.delete(jobId)) this.#send({ type: "unsubscribe", jobId });
  }

  isFollowing(jobId) {
    return this.#followed.has(jobId);
  }

  /** Somebody found the server not answering: a socket that seems open may be dead. */
  doubt() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#lose();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#drop();
    const socket = new WebSocket(this.address());
    this.#socket = socket;
    socket.onopen = () => {
      this.#attempt = 0;
      for (const jobId of this.#followed) this.#send({ type: "subscribe", jobId });
      this.hears.connected();
    };
    socket.onmessage = (event) => this.#hear(event.data);
    socket.onclose = () => this.#lose();
  }

  #hear(text) {
    const message = JSON.parse(text);
    if (message.error) this.hears.problem(message.error, message.jobId);
    else if (message.status) this.hears.status(message.jobId, message.status);
  }

  #send(message) {
    // What is not sent now is sent when the socket opens: it is in #followed.
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #lose() {
    this.#drop();
    if (!this.#running) return;
    this.#timer = setTimeout(() => this.#connect(), delayBefore(this.#attempt));
    this.#attempt += 1;
    this.hears.lost();
  }

  #hurry() {
    if (!this.#running || this.#socket) return;
    this.#attempt = 0;
    this.#connect();
  }

  #drop() {
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }
}
