// The stage: progress, the video beside the still, what can be done with it, and earlier takes.

import { ApiError, ask } from "./api.js";
import { $, complain, inBytes, inSeconds, inWords, say, show } from "./dom.js";

const POLL = 350; // milliseconds
const PATIENCE = 8; // polls that may fail, one after another
const CROP_RATIO = 96 / 128; // width to height of the aligned face

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export class Stage {
  busy = false;
  #job = null;
  #takes = [];
  #cancelled = false;

  constructor() {
    $("cancel").onclick = () => this.cancel();
    $("copy").onclick = () => this.#copy();
  }

  /** Show the still that is going to speak, or what is missing. */
  preview(portrait, hint) {
    if (this.busy || this.#takes.some(({ shown }) => shown)) return;
    const picture = portrait.picture;
    show(!picture, "nothing");
    show(Boolean(picture), "screen");
    show(false, "video-figure");
    $("screen").classList.remove("two", "dim");
    $("nothing-text").textContent = hint;
    if (picture) this.#still(picture.preview_url, picture.width / picture.height);
  }

  #still(url, ratio) {
    $("screen").style.setProperty("--ratio", ratio);
    $("still").src = url;
    $("still").alt = "The portrait";
  }

  /**
   * Make a video and show it.
   * @returns {Promise<boolean>} whether it was made
   */
  async make(wish, portrait, speech) {
    this.busy = true;
    this.#cancelled = false;
    this.#hide();
    const { preview_url: preview, width, height } = portrait.picture;
    const take = {
      wish,
      still: wish.crop ? portrait.crop : preview,
      picture: portrait.owned ? null : portrait.picture,
      sound: speech.owned || speech.sound.text ? null : speech.sound,
      shown: false,
    };
    show(false, "nothing", "video-figure");
    show(true, "screen", "busy");
    $("screen").classList.add("dim");
    this.#still(take.still, wish.crop ? CROP_RATIO : width / height);
    $("progress").removeAttribute("value");
    $("stage-name").textContent = "Asking";
    $("stage").scrollIntoView({ block: "nearest" });
    say("The video is being made.");
    try {
      this.#job = await ask("POST", "/api/jobs", {
        picture: portrait.picture.id,
        sound: speech.sound.id,
        face: portrait.face,
        ...wish,
      });
      take.job = await this.#watch();
      take.gone = Date.now() + 1000 * take.job.expires_in;
      this.#takes.push(take);
      this.#end();
      this.show(take);
      say("The video is ready.");
      return true;
    } catch (error) {
      this.#end();
      if (this.#cancelled) {
        say("Cancelled.");
      } else {
        complain("stage-error", error.message);
      }
      return false;
    }
  }

  async cancel() {
    this.#cancelled = true;
    $("stage-name").textContent = "Cancelling";
    if (this.#job) await ask("DELETE", `/api/jobs/${this.#job.id}`).catch(() => {});
  }

  /** Delete all videos on the server; the page forgets them. */
  async deleteAll() {
    for (const { job } of this.#takes) {
      await ask("DELETE", `/api/jobs/${job.id}`).catch(() => {});
    }
    this.#takes = [];
    this.#hide();
  }

  show(take) {
    for (const other of this.#takes) other.shown = other === take;
    const { job, still } = take;
    const made = job.video;
    show(false, "nothing", "busy", "stage-error");
    show(true, "screen", "still-figure", "video-figure", "result", "facts", "command");
    $("screen").classList.remove("dim");
    // Wide pictures are larger one above the other.
    $("screen").classList.toggle("two", made.width < 1.6 * made.height);
    this.#still(still, made.width / made.height);
    const video = $("video");
    video.poster = still;
    video.src = made.url;
    $("download").href = `${made.url}?download=true`;
    const left = inWords(Math.max((take.gone - Date.now()) / 1000, 0));
    const facts = [
      inSeconds(made.seconds),
      `${made.width} × ${made.height} pixels`,
      `${made.fps} frames a second`,
      inBytes(made.bytes),
      `made in ${inSeconds(made.took)}`,
      `removed in ${left}`,
    ];
    $("facts").replaceChildren(
      ...facts.map((fact) => Object.assign(document.createElement("li"), { textContent: fact })),
    );
    $("command-text").textContent = job.command;
    for (const [id, item] of [
      ["save-picture", take.picture],
      ["save-sound", take.sound],
    ]) {
      show(Boolean(item), id);
      if (item) $(id).href = item.original_url;
    }
    this.#listTakes();
    // Browsers let it play with sound where somebody has just pressed a button.
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
  }

  async #watch() {
    let failures = 0;
    let half = false;
    for (;;) {
      const job = this.#job;
      this.#tell(job);
      if (job.state === "done") return job;
      if (job.state === "failed") throw new ApiError(job.error);
      if (job.state === "cancelled") {
        this.#cancelled = true;
        throw new ApiError("cancelled");
      }
      if (!half && job.total && job.done > job.total / 2) {
        half = true;
        say("Half of the video is made.");
      }
      await sleep(POLL);
      try {
        this.#job = await ask("GET", `/api/jobs/${job.id}`);
        failures = 0;
      } catch (error) {
        if (error.status === 404) {
          throw new ApiError("the server has forgotten this video, it may have been restarted; choose the files again");
        }
        if (++failures > PATIENCE) throw error;
      }
    }
  }

  #tell(job) {
    if (this.#cancelled) return;
    const bar = $("progress");
    if (job.stage === "drawing") bar.value = job.done / job.total;
    else bar.removeAttribute("value");
    $("stage-name").textContent = {
      waiting: job.position === 0 ? "Waiting" : `Waiting, ${job.position} before this one`,
      loading: "Loading the model",
      looking: "Looking at the face",
      drawing: `Drawing frame ${Math.min(job.done + 1, job.total)} of ${job.total}`,
      running: "Starting",
      done: "Done",
    }[job.stage] ?? "";
  }

  #end() {
    const focused = document.activeElement === $("cancel");
    this.busy = false;
    this.#job = null;
    show(false, "busy");
    $("screen").classList.remove("dim");
    if (focused) $("stage").focus();
  }

  #hide() {
    for (const take of this.#takes) take.shown = false;
    $("video").pause();
    $("video").removeAttribute("src");
    $("video").load();
    complain("stage-error", null);
    show(false, "video-figure", "result", "facts", "command");
    $("screen").classList.remove("two");
    this.#listTakes();
  }

  #listTakes() {
    show(this.#takes.length > 1, "takes");
    $("takes-list").replaceChildren(
      ...this.#takes.map((take, number) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `${number + 1}: ${take.wish.model}, seed ${take.wish.seed}`;
        button.setAttribute("aria-pressed", String(take.shown));
        button.disabled = this.busy;
        button.onclick = () => {
          this.show(take);
          $("takes-list").children[number].firstChild.focus();
        };
        item.append(button);
        return item;
      }),
    );
  }

  async #copy() {
    const text = $("command-text").textContent;
    const label = $("copy").querySelector("span");
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
      say("The command was copied.");
    } catch {
      // No clipboard without HTTPS: select it, so that Ctrl-C does it.
      getSelection().selectAllChildren($("command-text"));
      label.textContent = "Selected: press Ctrl-C";
      say("The command is selected; copy it with Control C.");
    }
    setTimeout(() => (label.textContent = "Copy"), 3000);
  }
}
