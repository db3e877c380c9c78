// Makes elements, and changes a page into another one without losing focus. Data become text and attributes only, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `style` is an object: the policy of the page forbids style attributes. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Makes the children of `parent` equal to `wanted`, and keeps the elements that can stay. */
export function patch(parent, wanted) {
  const present = [...parent.childNodes];
  wanted.flat(Infinity).filter(Boolean).forEach((node, index) => {
    const old = present[index];
    if (!old) parent.append(node);
    else change(old, node);
  });
  const length = wanted.flat(Infinity).filter(Boolean).length;
  for (const old of present.slice(length)) old.remove();
}

function change(old, node) {
  const isSame = old.nodeType === node.nodeType && old.nodeName === node.nodeName &&
    (old.nodeType !== Node.ELEMENT_NODE || old.getAttribute("data-key") === node.getAttribute("data-key"));
  if (!isSame) {
    old.replaceWith(node);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  // What a person types or opens belongs to them.
  const kept = old.nodeName === "INPUT" ? ["value"] : old.nodeName === "DETAILS" ? ["open"] : [];
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name) && !kept.includes(name) && name !== "style") old.removeAttribute(name);
  }
  for (const { name, value } of [...node.attributes]) {
    if (name !== "style" && !kept.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style.cssText !== node.style.cssText) old.style.cssText = node.style.cssText;
  patch(old, [...node.childNodes]);
}

/** Says something to a screen reader. */
export function announce(text) {
  document.getElementById("announcements").textContent = text;
}
