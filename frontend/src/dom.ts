/** Finds and makes elements. */

/** The one element under `root` that `selector` names. */
export function find<T extends HTMLElement = HTMLElement>(root: ParentNode, selector: string): T {
  const element = root.querySelector<T>(selector);
  if (element === null) throw new Error(`there is no ${selector}`);
  return element;
}

/** A copy of a template's one element. */
export function fromTemplate(id: string): HTMLElement {
  const template = find<HTMLTemplateElement>(document, `template#${id}`);
  return find(template.content.cloneNode(true) as DocumentFragment, "*");
}

/** Set an element's text, if it is another: what is announced is announced once. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Show an element with that text, or hide it where there is none. */
export function sayOrHide(element: HTMLElement, text: string): void {
  say(element, text);
  element.hidden = !text;
}
