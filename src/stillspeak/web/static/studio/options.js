// Step 3: model, seed and strengths.

import { $ } from "./dom.js";

const STRENGTHS = { blink: 1, expression: 1, "head-motion": 1, strength: 1 };
const WHOLE = [480, 720, 1080];
const CROP = [128, 256, 512];

export class Options {
  #models;
  #most;
  #seeds = 0;

  constructor(info) {
    this.#models = info.models;
    this.#most = info.limits.size;
    for (const { name } of info.models) $("model").append(new Option(name, name));
    $("model").onchange = () => this.#tell();
    for (const radio of document.querySelectorAll("input[name=frame]")) {
      radio.onchange = () => {
        this.#sizes();
        this.#tell();
      };
    }
    for (const name of Object.keys(STRENGTHS)) $(name).oninput = () => this.#tell();
    $("mood").onchange = () => this.#tell();
    $("size").onchange = () => this.#tell();
    $("seed").oninput = () => this.#tell();
    $("dice").onclick = () => this.nextSeed();
    $("usual").onclick = () => this.reset();
    this.reset();
  }

  reset() {
    $("model").selectedIndex = 0;
    document.querySelector("input[name=frame][value=whole]").checked = true;
    for (const [name, value] of Object.entries(STRENGTHS)) $(name).value = value;
    $("mood").selectedIndex = 0;
    $("seed").value = 0;
    this.#sizes();
    this.#tell();
  }

  nextSeed() {
    this.#seeds = Math.max(this.#seeds, Number($("seed").value) || 0) + 1;
    $("seed").value = this.#seeds;
    this.#tell();
  }

  get crop() {
    return document.querySelector("input[name=frame]:checked").value === "crop";
  }

  /** What the server is asked for, or null where a field is wrong; that field gets the focus. */
  read() {
    const seed = $("seed");
    if (!seed.checkValidity() || seed.value === "") {
      $("options").open = true;
      seed.reportValidity();
      seed.focus();
      return null;
    }
    return {
      model: $("model").value,
      seed: Number(seed.value),
      crop: this.crop,
      size: $("size").value ? Number($("size").value) : null,
      blink: Number($("blink").value),
      expression: Number($("expression").value),
      head_motion: Number($("head-motion").value),
      mood: this.#mood,
    };
  }

  /** As the command line takes it, such as "happy:0.5". */
  get #mood() {
    const [name, strength] = [$("mood").value, Number($("strength").value)];
    return name === "neutral" || strength === 1 ? name : `${name}:${strength}`;
  }

  #sizes() {
    const sizes = (this.crop ? CROP : WHOLE).filter((size) => size <= this.#most);
    const first = this.crop
      ? new Option(`${CROP[0]} pixels, as the model draws it`, "")
      : new Option("As the photo", "");
    const rest = this.crop ? sizes.slice(1) : sizes;
    $("size").replaceChildren(first, ...rest.map((size) => new Option(`${size} pixels`, size)));
    if (this.crop && sizes.includes(256)) $("size").value = 256;
  }

  #tell() {
    const model = this.#models[$("model").selectedIndex];
    const summary = model.summary;
    $("model-summary").textContent = summary[0].toUpperCase() + summary.slice(1) + ".";
    $("strength").disabled = $("mood").value === "neutral";
    for (const name of Object.keys(STRENGTHS)) {
      const value = Number($(name).value);
      const text = value === 0 ? "none" : value === 1 ? "as people do" : `× ${value}`;
      $(`${name}-value`).textContent = text;
      $(name).setAttribute("aria-valuetext", text);
    }
    const frame = this.crop ? "just the face" : "whole photo";
    $("options-summary").textContent = `${model.name}, ${frame}, seed ${$("seed").value || "?"}`;
  }
}
