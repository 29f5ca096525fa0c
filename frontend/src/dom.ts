/** Helpers to find, create and update elements. */

const ANNOUNCEMENT_DELAY_MS = 100; // long enough for screen readers to treat it as new

/**
 * Returns the first element under `root` that matches `selector`.
 *
 * @throws Error if there is none.
 */
export function find<T extends HTMLElement = HTMLElement>(root: ParentNode, selector: string): T {
  const element = root.querySelector<T>(selector);
  if (element === null) throw new Error(`no element matches ${selector}`);
  return element;
}

/** Returns a copy of a template's only element. */
export function fromTemplate(id: string): HTMLElement {
  const template = find<HTMLTemplateElement>(document, `template#${id}`);
  return find(template.content.cloneNode(true) as DocumentFragment, "*");
}

/** Sets an element's text if it differs, so that live regions do not announce it twice. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Announces a sentence to screen readers, even if it equals the previous one. */
export function announce(sentence: string): void {
  const announcement = find(document, "#announcement");
  announcement.textContent = "";
  setTimeout(() => setText(announcement, sentence), ANNOUNCEMENT_DELAY_MS);
}

/** Shows an element with the text, or hides it if the text is empty. */
export function setTextOrHide(element: HTMLElement, text: string): void {
  setText(element, text);
  element.hidden = !text;
}
