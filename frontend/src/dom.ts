/** Finds and makes elements. */

const NOTICED_MS = 100; // after which an announcement is taken for another one

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

/** Have screen readers say it, also if it is what they said last. */
export function tell(sentence: string): void {
  const announcement = find(document, "#announcement");
  announcement.textContent = "";
  setTimeout(() => say(announcement, sentence), NOTICED_MS);
}

/** Show an element with that text, or hide it where there is none. */
export function sayOrHide(element: HTMLElement, text: string): void {
  say(element, text);
  element.hidden = !text;
}
