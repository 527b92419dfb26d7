// Step 2: the speech, from a file, the microphone, typed text or the samples.

import { ask, upload } from "./api.js";
import { $, clock, complain, holdFocus, icon, inBytes, inSeconds, inWords, say, show } from "./dom.js";

const KINDS = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];

export class Speech extends EventTarget {
  /** The server's sound, or null. */
  sound = null;
  owned = true;
  /** Ids of all that the server was given, so that all of it can be deleted. */
  ids = [];

  #limits;
  #abort = null;
  #recording = null;
  #player = new Audio();

  constructor(info) {
    super();
    this.#limits = info.limits;
    for (const radio of document.querySelectorAll("input[name=way]")) {
      radio.onchange = () => this.#switch(radio.value);
    }
    $("sound-button").onclick = () => $("sound-file").click();
    $("sound-file").onchange = (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (file) this.take(file);
    };
    $("record-button").onclick = () => (this.#recording ? this.#stop() : this.#record());
    $("sound-again").onclick = () => {
      this.clear();
      document.querySelector("input[name=way]:checked").focus();
    };
    for (const sample of info.samples.filter(({ kind }) => kind === "sound")) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.title = sample.credit;
      const disc = document.createElement("span");
      disc.className = "disc";
      disc.append(icon("play"));
      button.append(disc, sample.title);
      button.onclick = () => this.takeSample(sample.id);
      item.append(button);
      $("sound-samples").append(item);
    }
    this.#setUpText(info);
    this.#setUpPlayer();
  }

  take(file, { owned = true } = {}) {
    const { upload_bytes: most } = this.#limits;
    const name = file.name || "sound";
    if (file.size > most) {
      return this.#fail(`${name}: has ${inBytes(file.size)} and at most ${inBytes(most)} are taken; cut it`);
    }
    return this.#load(
      (progress, signal) => upload("/api/sounds", file, name, progress, signal),
      "Listening",
      owned,
    );
  }

  takeSample(id) {
    return this.#load(() => ask("POST", `/api/samples/${id}`), "Listening", false);
  }

  clear() {
    this.#abort?.abort();
    this.#player.pause();
    this.sound = null;
    complain("speech-error", null);
    this.#render();
    this.#changed();
  }

  #way() {
    return document.querySelector("input[name=way]:checked").value;
  }

  #switch(way) {
    if (way !== "record") this.#drop();
    complain("speech-error", null);
    for (const name of ["file", "record", "text"]) show(name === way, `way-${name}-panel`);
  }

  async #load(send, waiting, owned) {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const focus = holdFocus("speech");
    this.#drop();
    this.#player.pause();
    this.sound = null;
    complain("speech-error", null);
    this.#render();
    show(false, "speech-choose", "way-file-panel", "way-record-panel", "way-text-panel");
    show(true, "speech-wait");
    const bar = $("speech-progress");
    bar.removeAttribute("value");
    $("speech-wait-text").textContent = waiting;
    this.#changed();
    try {
      const sound = await send((share) => {
        $("speech-wait-text").textContent = share < 1 ? "Uploading" : waiting;
        if (share < 1) bar.value = share;
        else bar.removeAttribute("value");
      }, abort.signal);
      this.ids.push(sound.id);
      if (abort.signal.aborted) return false;
      this.sound = sound;
      this.owned = owned;
      show(false, "speech-wait");
      this.#render();
      say(`The speech is there: ${inSeconds(sound.seconds)}.`);
      this.#changed();
      focus("sound-play");
      return true;
    } catch (error) {
      if (abort.signal.aborted) return false;
      this.#fail(error.message);
      focus({ file: "sound-button", record: "record-button", text: "text" }[this.#way()]);
      return false;
    }
  }

  #fail(message) {
    show(false, "speech-wait");
    this.sound = null;
    this.#render();
    complain("speech-error", message);
    this.#changed();
    return false;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #render() {
    const sound = this.sound;
    $("speech").classList.toggle("ready", Boolean(sound));
    show(Boolean(sound), "sound", "speech-change");
    show(!sound, "speech-choose");
    for (const name of ["file", "record", "text"]) {
      show(!sound && name === this.#way(), `way-${name}-panel`);
    }
    $("speech-state").textContent = sound ? inSeconds(sound.seconds) : "";
    if (!sound) return;
    $("sound-name").textContent = sound.text ? `“${sound.text}”` : sound.name;
    const outline = bars(sound.peaks);
    $("wave-all").setAttribute("d", outline);
    $("wave-done").setAttribute("d", outline);
    $("wave-past-box").setAttribute("width", 0);
    this.#player.src = sound.audio_url;
  }

  #setUpPlayer() {
    const player = this.#player;
    player.preload = "none";
    const button = $("sound-play");
    button.onclick = () => (player.paused ? player.play() : player.pause());
    const update = () => {
      $("sound-play-icon").setAttribute("href", player.paused ? "#i-play" : "#i-pause");
      button.setAttribute("aria-label", player.paused ? "Play the sound" : "Pause the sound");
    };
    const advance = () => {
      const share = this.sound ? Math.min(player.currentTime / this.sound.seconds, 1) : 0;
      $("wave-past-box").setAttribute("width", 240 * share);
      if (!player.paused) requestAnimationFrame(advance);
    };
    player.onplay = () => {
      update();
      advance();
    };
    player.onpause = update;
    player.onended = () => {
      update();
      player.currentTime = 0;
      advance();
    };
  }

  // --- text ---

  #setUpText(info) {
    if (!info.voices.length) return; // espeak-ng is not installed
    show(true, "way-text");
    const groups = new Map();
    for (const { id, name } of info.voices) {
      const group = id.startsWith("en") ? "English" : "Other languages";
      if (!groups.has(group)) {
        const made = document.createElement("optgroup");
        made.label = group;
        groups.set(group, made);
        $("voice").append(made);
      }
      groups.get(group).append(new Option(name, id));
    }
    const text = $("text");
    const most = this.#limits.text;
    const count = () => ($("text-count").textContent = `${text.value.length} of ${most} characters`);
    text.maxLength = most;
    text.oninput = count;
    count();
    const speed = $("speed");
    speed.min = info.speed.min;
    speed.max = info.speed.max;
    const told = () => ($("speed-value").textContent = `${speed.value} words a minute`);
    speed.oninput = told;
    told();
    $("speak").onclick = () => {
      if (!text.value.trim()) {
        complain("speech-error", "type what shall be said");
        return text.focus();
      }
      const wish = { text: text.value, voice: $("voice").value, speed: Number(speed.value) };
      return this.#load(() => ask("POST", "/api/speech", wish), "Speaking", false);
    };
  }

  // --- the microphone ---

  async #record() {
    complain("speech-error", null);
    if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
      return complain(
        "speech-error",
        "the microphone works only where this page comes from this very machine or over HTTPS; choose a file",
      );
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return complain(
        "speech-error",
        error.name === "NotAllowedError"
          ? "the browser may not use the microphone; allow it beside the address, or choose a file"
          : "no microphone was found; choose a file",
      );
    }
    const type = KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
    const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    const pieces = [];
    recorder.ondataavailable = ({ data }) => data.size && pieces.push(data);
    recorder.onstop = () => {
      const kept = recording.kept;
      this.#finish();
      if (!kept) return;
      const suffix = { "audio/mp4": "m4a", "audio/ogg": "ogg" }[recorder.mimeType.split(";")[0]];
      const file = new File(pieces, `recording.${suffix ?? "webm"}`, { type: recorder.mimeType });
      this.take(file, { owned: false });
    };
    const recording = { recorder, stream, kept: false, began: performance.now(), timer: 0 };
    this.#recording = recording;
    recording.loudness = loudness(stream);
    recorder.start(1000);
    $("way-record-panel").classList.add("on");
    $("record-button").replaceChildren(icon("stop"), "Stop");
    show(true, "record-clock", "record-level");
    $("record-hint").textContent = `Recording; at most ${inWords(this.#limits.seconds)}.`;
    say("Recording.");
    recording.timer = setInterval(() => {
      const seconds = (performance.now() - recording.began) / 1000;
      $("record-clock").textContent = clock(seconds);
      $("record-level").value = recording.loudness.now();
      // A little before the limit, which the file must not pass.
      if (seconds > this.#limits.seconds - 0.5) this.#stop();
    }, 100);
  }

  /** End a recording and use it. */
  #stop() {
    if (!this.#recording) return;
    this.#recording.kept = true;
    this.#recording.recorder.stop();
  }

  /** End a recording and forget it. */
  #drop() {
    if (this.#recording?.recorder.state === "recording") this.#recording.recorder.stop();
  }

  #finish() {
    const { stream, timer, loudness } = this.#recording;
    this.#recording = null;
    clearInterval(timer);
    loudness.close();
    for (const track of stream.getTracks()) track.stop();
    $("way-record-panel").classList.remove("on");
    $("record-button").replaceChildren(icon("mic"), "Record");
    $("record-clock").textContent = "0:00";
    show(false, "record-clock", "record-level");
    $("record-hint").textContent = "Speak a sentence or two, close to the microphone.";
  }
}

/** How loud a stream is, 0 to 1. */
function loudness(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    now() {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
      const decibels = 10 * Math.log10(power + 1e-9);
      return Math.min(Math.max((decibels + 55) / 50, 0), 1);
    },
    close: () => context.close(),
  };
}

/** Peaks in [0, 1] as a path of bars in a box of 240 x 40. */
function bars(peaks) {
  const step = 3; // of the peaks, so that there is air between the bars
  let path = "";
  for (let i = 0; i < peaks.length; i += step) {
    const high = Math.max(...peaks.slice(i, i + step));
    const half = Math.max(19 * Math.sqrt(high), 0.8);
    const x = (240 * i) / peaks.length;
    path += `M${x} ${20 - half}h2v${2 * half}h-2z`;
  }
  return path;
}
