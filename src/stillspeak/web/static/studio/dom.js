// Small things that every part of the page needs.

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** Show or hide elements by id. */
export function show(visible, ...ids) {
  for (const id of ids) $(id).hidden = !visible;
}

/** Tell those who listen to the page. */
export function say(text) {
  const place = $("say");
  place.textContent = "";
  // A change is announced, the same text again is not.
  requestAnimationFrame(() => (place.textContent = text));
}

/** An icon of the page's sheet. */
export function icon(name) {
  const svg = svgElement("svg", { class: "icon", "aria-hidden": "true" });
  svg.append(svgElement("use", { href: `#i-${name}` }));
  return svg;
}

export function svgElement(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** An error beside what it is about; null takes it away. */
export function complain(id, message) {
  const place = $(id);
  place.hidden = !message;
  place.replaceChildren();
  if (message) {
    const text = document.createElement("span");
    text.textContent = message;
    place.append(icon("warn"), text);
  }
}

/** 75.2 -> "1:15". */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** 7.08 -> "7.1 s". */
export function inSeconds(seconds) {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${clock(seconds)} min`;
}

/** 3600 -> "1 hour". */
export function inWords(seconds) {
  const units = [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
    ["second", 1],
  ];
  const [name, size] = units.find(([, size]) => seconds > 0.99 * size) ?? units.at(-1);
  const count = Math.round(seconds / size);
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

/** 123456 -> "121 KB". */
export function inBytes(bytes) {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KB` : `${(bytes / 2 ** 20).toFixed(1)} MB`;
}

/**
 * Keep the keyboard's place while a step hides the control that was used.
 * @param {string} step id of the step
 * @returns {(id: string) => void} what to call, once there is something to focus on again
 */
export function holdFocus(step) {
  const place = $(step);
  if (!place.contains(document.activeElement)) return () => {};
  place.focus({ preventScroll: true });
  return (id) => {
    if (document.activeElement === place || document.activeElement === document.body) {
      $(id).focus({ preventScroll: true });
    }
  };
}
