// Step 1: the portrait, from a file, the clipboard, the camera or the samples, and its faces.

import { ask, upload } from "./api.js";
import { $, complain, holdFocus, inBytes, say, show, svgElement } from "./dom.js";

export class Portrait extends EventTarget {
  /** The server's picture, or null. */
  picture = null;
  /** Index of the face that shall speak. */
  face = 0;
  /** Whether the visitor has the file, so that a command line can name it. */
  owned = true;
  /** Ids of all that the server was given, so that all of it can be deleted. */
  ids = [];

  #limits;
  #stream = null;
  #abort = null;

  constructor(info) {
    super();
    this.#limits = info.limits;
    $("picture-button").onclick = () => $("picture-file").click();
    $("picture-file").onchange = (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // the same file can be chosen again
      if (file) this.take(file);
    };
    $("camera-button").onclick = () => this.#openCamera();
    $("camera-take").onclick = () => this.#shoot();
    $("camera-close").onclick = () => {
      this.#closeCamera();
      $("camera-button").focus();
    };
    $("picture-again").onclick = () => {
      this.clear();
      $("picture-button").focus();
    };
    for (const sample of info.samples.filter(({ kind }) => kind === "picture")) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.title = sample.credit;
      const image = document.createElement("img");
      image.src = `/static/samples/${sample.id}.jpg`;
      image.alt = "";
      button.append(image, sample.title);
      button.onclick = () => this.takeSample(sample.id);
      item.append(button);
      $("picture-samples").append(item);
    }
  }

  /** Upload a file. */
  take(file, { owned = true } = {}) {
    const { upload_bytes: most } = this.#limits;
    const name = file.name || "picture";
    if (file.size > most) {
      return this.#fail(`${name}: has ${inBytes(file.size)} and at most ${inBytes(most)} are taken; make it smaller`);
    }
    return this.#load(
      (progress, signal) => upload("/api/pictures", file, name, progress, signal),
      owned,
    );
  }

  takeSample(id) {
    return this.#load(() => ask("POST", `/api/samples/${id}`), false);
  }

  clear() {
    this.#abort?.abort();
    this.#closeCamera();
    this.picture = null;
    complain("portrait-error", null);
    this.#render();
    this.#changed();
  }

  async #load(send, owned) {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const focus = holdFocus("portrait");
    this.#closeCamera();
    this.picture = null;
    complain("portrait-error", null);
    this.#render();
    show(false, "portrait-choose");
    show(true, "portrait-wait");
    const bar = $("portrait-progress");
    bar.removeAttribute("value");
    $("portrait-wait-text").textContent = "Looking for a face";
    this.#changed();
    try {
      const picture = await send((share) => {
        $("portrait-wait-text").textContent = share < 1 ? "Uploading" : "Looking for a face";
        if (share < 1) bar.value = share;
        else bar.removeAttribute("value");
      }, abort.signal);
      this.ids.push(picture.id);
      if (abort.signal.aborted) return false;
      this.picture = picture;
      this.owned = owned;
      this.face = picture.faces.find(({ problem }) => !problem).index;
      show(false, "portrait-wait");
      this.#render();
      const count = picture.faces.length;
      say(count === 1 ? "One face found." : `${count} faces found. Choose who shall speak.`);
      this.#changed();
      focus("picture-again");
      return true;
    } catch (error) {
      if (abort.signal.aborted) return false;
      this.#fail(error.message);
      focus("picture-button");
      return false;
    }
  }

  #fail(message) {
    show(false, "portrait-wait");
    this.picture = null;
    this.#render();
    complain("portrait-error", message);
    this.#changed();
    return false;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Crop of the face that shall speak. */
  get crop() {
    return this.picture.faces[this.face].crop_url;
  }

  #render() {
    const picture = this.picture;
    $("portrait").classList.toggle("ready", Boolean(picture));
    show(!picture, "portrait-choose");
    show(Boolean(picture), "portrait-found", "portrait-change");
    show(picture?.faces.length > 1, "faces");
    $("portrait-state").textContent = picture ? `${picture.width} × ${picture.height}` : "";
    if (!picture) return;
    $("photo-image").src = picture.preview_url;
    $("photo-image").alt = `The portrait, ${picture.name}`;
    const choices = $("faces");
    for (const label of choices.querySelectorAll("label")) label.remove();
    if (picture.faces.length > 1) {
      for (const face of picture.faces) choices.append(this.#choice(face));
    }
    this.#mark();
  }

  #choice(face) {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = "face";
    radio.value = face.index;
    radio.checked = face.index === this.face;
    radio.disabled = Boolean(face.problem);
    radio.onchange = () => this.#choose(face.index);
    const image = document.createElement("img");
    image.src = face.crop_url;
    image.alt = `Face ${face.index + 1}${face.problem ? `, not usable: ${face.problem}` : ""}`;
    label.title = face.problem ?? "";
    label.append(radio, image);
    return label;
  }

  #choose(index) {
    this.face = index;
    for (const radio of $("faces").querySelectorAll("input")) {
      radio.checked = Number(radio.value) === index;
    }
    this.#mark();
    this.#changed();
  }

  /** Draw what the model sees into the photo. */
  #mark() {
    const several = this.picture.faces.length > 1;
    $("photo-faces").replaceChildren(
      ...this.picture.faces.map((face) => {
        const chosen = face.index === this.face;
        const pick = several && !face.problem;
        const shape = svgElement("polygon", {
          points: face.crop.map((point) => point.join(",")).join(" "),
          class: `${chosen ? "chosen" : ""} ${pick ? "pick" : ""}`,
        });
        if (pick) shape.onclick = () => this.#choose(face.index);
        return shape;
      }),
    );
    const image = $("crop-image");
    image.src = this.crop;
    image.alt = "The face as the model sees it";
    const { warnings } = this.picture.faces[this.face];
    complain("portrait-note", warnings.map(({ message }) => `Note: ${message}.`).join(" "));
  }

  async #openCamera() {
    complain("portrait-error", null);
    if (!navigator.mediaDevices?.getUserMedia) {
      return complain(
        "portrait-error",
        "the camera works only where this page comes from this very machine or over HTTPS; choose a file",
      );
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } },
      });
    } catch (error) {
      return complain(
        "portrait-error",
        error.name === "NotAllowedError"
          ? "the browser may not use the camera; allow it beside the address, or choose a file"
          : "no camera was found; choose a file",
      );
    }
    $("camera-view").srcObject = this.#stream;
    show(false, "portrait-choose");
    show(true, "camera");
    $("camera-take").focus();
    say("The camera is on.");
  }

  #closeCamera() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    $("camera-view").srcObject = null;
    show(false, "camera");
    if (!this.picture) show(true, "portrait-choose");
  }

  async #shoot() {
    const view = $("camera-view");
    if (!view.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    await this.take(new File([blob], "camera.jpg", { type: "image/jpeg" }), { owned: false });
  }
}
