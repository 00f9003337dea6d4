/** Dropping files or folders anywhere on the page. */

import { setHidden } from "./dom.js";

// What a browser takes for no image by its name may be one: only what is surely something else is left out.
const isPerhapsImage = (file) => !file.name.startsWith(".") && (!file.type || file.type.startsWith("image/"));

/** @param take  (images, leftOut) => void: the files that may be images, and how many others there were. */
export function acceptDrops(veil, isWelcome, take) {
  // Entering a child comes before leaving its parent: only their balance tells whether the pointer is still here.
  let depth = 0;
  const concerns = (event) => isWelcome() && event.dataTransfer?.types.includes("Files");
  const show = (change) => setHidden(veil, (depth = Math.max(0, depth + change)) === 0);

  addEventListener("dragenter", (event) => concerns(event) && show(+1));
  addEventListener("dragleave", (event) => concerns(event) && show(-1));
  addEventListener("dragover", (event) => concerns(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (!concerns(event)) return;
    event.preventDefault(); // Or the browser would leave the page and show the file.
    show(-depth);
    const files = await filesOf(event.dataTransfer);
    const images = files.filter(isPerhapsImage);
    take(images, files.length - images.length);
  });
}

function filesOf(transfer) {
  // The entries must be asked for at once: the browser empties the transfer when the event is over.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return entries.length ? flatten(entries.map(walk)) : [...transfer.files];
}

async function walk(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  // A reader gives a hundred entries at a time, and an empty list at the end.
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return flatten(found.map(walk));
    found.push(...some);
  }
}

const flatten = async (promises) => (await Promise.all(promises)).flat();
