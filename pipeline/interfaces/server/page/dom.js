/** Building and updating nodes. Text goes in as text only, so that no name, URL or message can become markup. */

/**
 * Make an element. Attributes that are functions are listeners (`onclick`); null, undefined and false are left out.
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// The setters below touch the document only if something differs: a snapshot comes many times a second, and most of
// it is what stands there already.

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** Set a custom property: the one way to style by a number that the Content-Security-Policy allows. */
export function setVariable(node, name, value) {
  const text = String(value);
  if (node.style.getPropertyValue(name) !== text) node.style.setProperty(name, text);
}

/** Hide a control for good manners: if it has the focus, that goes to `heir`, not to the top of the page. */
export function hideControl(control, hidden, heir) {
  if (hidden && control.contains(document.activeElement)) heir.focus({ preventScroll: true });
  setHidden(control, hidden);
}

/** Show a problem to the person, or take it away if there is none. */
export function showProblem(node, message) {
  setText(node, message || "");
  setHidden(node, !message);
}
