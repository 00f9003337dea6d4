/** Numbers, times and states as people read them; the same words as in the command line. */

const count = new Intl.NumberFormat("en");
const oneDecimal = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const formatCount = (number) => count.format(number);
export const formatRate = (perSecond) => `${oneDecimal.format(perSecond)} images/s`;
export const formatPixels = (columns, rows) => `${columns} × ${rows} px`;

/** `1 image`, `1,024 images`. */
export function formatImages(number, what = "image") {
  return `${count.format(number)} ${what}${number === 1 ? "" : "s"}`;
}

/** `850 ms`, `8.6 s`, `2 min 05 s`, `3 h 07 min`. */
export function formatSeconds(seconds) {
  if (seconds < 0.9995) return seconds ? `${Math.round(1000 * seconds)} ms` : "0 s";
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  return `${count.format(Math.floor(minutes / 60))} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** `53.5 MB`: the unit that leaves one to three digits before the point. */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  let size = bytes;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    size /= 1000;
    if (size < 999.95) return `${size.toFixed(1)} ${unit}`;
  }
  return `${oneDecimal.format(size / 1000)} PB`;
}

/** `just now`, `5 min ago`, `3 h ago`, then the date. */
export function formatAgo(iso, now = Date.now()) {
  const then = Date.parse(iso);
  if (Number.isNaN(then)) return "";
  const minutes = Math.floor((now - then) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return new Date(then).toLocaleDateString([], { dateStyle: "medium" });
}

/** What a state means when it is not plain: a sentence, or nothing. */
export function explainStatus(status) {
  if (status.cancelRequested && status.status === "processing") return "Cancelling; what is at work ends first.";
  if (status.status === "queued") return "Waiting for its turn.";
  if (status.status === "stalled") {
    return "Nothing has been heard of it for a while: the process that ran it may be gone. What is stored stays.";
  }
  if (status.status === "cancelled") return "Cancelled. What is stored stays.";
  if (status.status === "processing" && status.total === undefined) return "Counting the images.";
  return "";
}

/** A change of state as a sentence for a screen reader. */
export function announceStatus(status) {
  const parts = [`Job ${nameJob(status)} is ${status.status}`];
  if (status.stored) parts.push(`${count.format(status.stored)} stored`);
  if (status.failed) parts.push(`${count.format(status.failed)} failed`);
  return `${parts.join(", ")}.`;
}

// What the server calls the collections that it has made itself.
const OWN_COLLECTIONS = { uploads: "uploaded file", list: "image" };

/** What a job is called: what the person pointed at, or how much of it there was. */
export function nameJob({ id, collection, total }) {
  const what = OWN_COLLECTIONS[collection];
  if (!what) return collection || id;
  return total === undefined ? `${what[0].toUpperCase()}${what.slice(1)}s` : formatImages(total, what);
}

/** `1024 × 1024 inside · JPEG 80 · restore`; empty if the server does not tell the recipe. */
export function describeRecipe(status) {
  if (!status.maxWidth || !status.maxHeight) return "";
  const format = status.format === "same" ? "the source's format" : (status.format || "").toUpperCase();
  const encoding = status.format === "png" ? format : `${format} ${status.quality}`;
  const model = status.enhance && status.enhance !== "none" ? status.enhance : "no enhancement";
  return [`${status.maxWidth} × ${status.maxHeight} ${status.fit}`, encoding, model].join(" · ");
}

/** What an image is called: its file's name. Where a query tells images apart, their keys do. */
export function nameItem({ key, url }) {
  return url && !/[?#]/.test(url) ? lastPart(url) : key;
}

function lastPart(path) {
  const plain = path.replace(/\/+$/, "");
  const part = plain.slice(plain.lastIndexOf("/") + 1) || path;
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // A stray % is no reason to show nothing.
  }
}
