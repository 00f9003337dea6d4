/* Makes the cards on the page those of a newer text, and touches nothing that has stayed the same. */
function showCards(html) {
  const next = document.createElement("template");
  next.innerHTML = html;
  alignChildren(document.getElementById("pipeline-cards"), next.content);
}

function alignChildren(shown, next) {
  const wanted = [...next.childNodes];
  wanted.forEach((node, place) => {
    const old = shown.childNodes[place];
    if (!old) shown.append(node);
    else if (!isSameKind(old, node)) old.replaceWith(node);
    else align(old, node);
  });
  while (shown.childNodes.length > wanted.length) shown.lastChild.remove();
}

function isSameKind(one, other) {
  return one.nodeName === other.nodeName && one.id === other.id;
}

function align(shown, next) {
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    if (shown.nodeValue !== next.nodeValue) shown.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...shown.attributes]) if (!next.hasAttribute(name)) shown.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  alignChildren(shown, next);
}
