// The studio page: three steps, then the stage.

import { ask } from "./api.js";
import { $, complain, inWords, say, show } from "./dom.js";
import { Options } from "./options.js";
import { Portrait } from "./portrait.js";
import { Speech } from "./speech.js";
import { Stage } from "./stage.js";

async function start() {
  let info;
  try {
    info = await ask("GET", "/api/info");
  } catch (error) {
    return complain("stage-error", error.message);
  }
  const portrait = new Portrait(info);
  const speech = new Speech(info);
  const options = new Options(info);
  const stage = new Stage();

  show(info.live, "live-link");
  $("version").textContent = `stillspeak ${info.version}`;
  $("keep").textContent =
    "What you upload or make stays on this server and is removed after " +
    `${inWords(info.limits.keep_seconds)}, or at once with “Delete my files”.`;
  $("speech-hint").textContent =
    `Drop a sound or a video with speech here: at most ${inWords(info.limits.seconds)}.`;

  function refresh() {
    const missing = !portrait.picture
      ? speech.sound
        ? "Now choose a portrait."
        : "Choose a portrait and what it says."
      : "";
    stage.preview(portrait, missing);
  }

  async function make() {
    if (stage.busy) return;
    const wish = options.read();
    if (!wish) return;
    $("go").disabled = true;
    $("try").disabled = true;
    await stage.make(wish, portrait, speech);
    $("go").disabled = false;
    $("try").disabled = false;
  }

  portrait.addEventListener("change", refresh);
  speech.addEventListener("change", refresh);

  $("steps").onsubmit = (event) => {
    event.preventDefault();
    if (!portrait.picture) {
      complain("portrait-error", "choose a portrait first");
      return $("picture-button").focus();
    }
    if (!speech.sound) {
      complain("speech-error", "choose what it says first");
      return document.querySelector("input[name=way]:checked").focus();
    }
    return make();
  };

  $("try").onclick = async () => {
    const samples = (kind) => info.samples.find((sample) => sample.kind === kind).id;
    const taken = await Promise.all([
      portrait.takeSample(samples("picture")),
      speech.takeSample(samples("sound")),
    ]);
    if (taken.every(Boolean)) await make();
  };

  $("again").onclick = () => {
    options.nextSeed();
    return make();
  };

  $("delete").onclick = async () => {
    portrait.clear();
    speech.clear();
    await stage.deleteAll();
    for (const [kind, step] of [
      ["pictures", portrait],
      ["sounds", speech],
    ]) {
      // What is gone already is no reason to stop.
      for (const id of step.ids.splice(0)) await ask("DELETE", `/api/${kind}/${id}`).catch(() => {});
    }
    refresh();
    say("Your files are deleted.");
    $("stage").focus();
  };

  // Files may be dropped anywhere; what they are decides where they go.
  const place = (file) => (file.type.startsWith("image/") ? portrait : speech);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    const [item] = event.dataTransfer.items;
    const image = item?.type.startsWith("image/");
    $("portrait").classList.toggle("over", Boolean(image));
    $("speech").classList.toggle("over", Boolean(item) && !image);
  });
  const leave = () => {
    $("portrait").classList.remove("over");
    $("speech").classList.remove("over");
  };
  addEventListener("dragleave", (event) => event.relatedTarget ?? leave());
  addEventListener("drop", (event) => {
    event.preventDefault();
    leave();
    for (const file of [...event.dataTransfer.files].slice(0, 2)) place(file).take(file);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) place(file).take(file);
  });
  addEventListener("beforeunload", (event) => {
    if (stage.busy) event.preventDefault();
  });

  refresh();
  document.documentElement.dataset.ready = "yes";
}

start();
