// The page of a study: shows one trial at a time, plays its videos in step, sends the answer.
// Everything that must last is on the server; a reload shows what comes next.
"use strict";
(() => {
  const settings = JSON.parse(document.body.dataset.settings);
  const el = (id) => document.getElementById(id);
  const SECTIONS = ["consent", "trial", "done", "deleted"];
  const DRIFT = 0.06; // seconds by which a pair may be out of step
  let trial = null;
  let players = [];
  let playable = null; // when this trial could first be played, ms
  let shownAt = 0;
  let watched = false;
  let plays = 0;
  let playing = false;
  let busy = false;
  let following = null; // the state after a training trial's feedback
  let total = 0;

  // ---------------------------------------------------------------- requests

  async function ask(path, body) {
    const options = body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Study": "1" },
      body: JSON.stringify(body),
    };
    let reply;
    try {
      reply = await fetch("api/" + path, { credentials: "same-origin", ...options });
    } catch {
      throw new Problem(0, "The connection was lost.");
    }
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Problem(reply.status, told.message || "Something went wrong.");
    return told;
  }

  class Problem extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  // A request that changes nothing when it is sent twice is sent again until it is answered.
  async function insist(path, body) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const told = await ask(path, body);
        say("");
        return told;
      } catch (problem) {
        const passing = problem.status === 0 || problem.status === 503 || problem.status === 429;
        if (!passing || attempt > 40) throw problem;
        say(problem.message + " Trying again; please leave this page open.");
        await new Promise((go) => setTimeout(go, Math.min(8000, 400 * 2 ** attempt)));
      }
    }
  }

  function say(text) {
    const status = el("status");
    status.textContent = text;
    status.hidden = !text;
  }

  function drawKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // ---------------------------------------------------------------- pages

  function show(state, focus = true) {
    el("loading").hidden = true;
    for (const name of SECTIONS) el(name).hidden = name !== state.phase;
    const known = state.phase === "trial" || state.phase === "done";
    el("mine").hidden = !known;
    el("progress").hidden = !known;
    if (state.code) el("code-shown").textContent = state.code;
    if (known) {
      total = state.total;
      const done = state.phase === "done" ? total : state.trial.position - 1;
      el("bar").max = total;
      el("bar").value = done;
      el("where").textContent = `${done} of ${total} done`;
    }
    if (state.phase === "trial") showTrial(state.trial, state.next || []);
    else clearPlayers();
    if (state.phase === "done" && state.score) {
      el("score").hidden = false;
      el("score").textContent = `You labelled ${state.score.right} of ${state.score.of} videos correctly.`;
    }
    if (focus) el(state.phase + "-title").focus();
  }

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  function clearPlayers() {
    for (const player of players) {
      player.pause();
      player.removeAttribute("src");
      player.load();
    }
    players = [];
    playing = false;
  }

  function showTrial(told, next) {
    trial = told;
    plays = told.plays;
    watched = told.watched;
    playable = null;
    shownAt = performance.now();
    clearPlayers();
    el("trial-title").textContent = told.training
      ? `Practice ${told.position} of ${total}`
      : `${told.position} of ${total}`;
    el("note").hidden = !told.training && !told.instead;
    el("note").textContent = told.instead
      ? `This one checks that you are reading. Whatever the person says, answer: ${told.instead}`
      : "Practice: this answer does not count.";
    el("feedback").hidden = true;
    el("answers").hidden = false;
    el("next").hidden = false;
    const box = el("videos");
    box.replaceChildren();
    told.videos.forEach((file, index) => {
      const video = make("video", {
        src: file.url, preload: "auto", playsInline: true, width: file.width,
        height: file.height, disablePictureInPicture: true, disableRemotePlayback: true,
      });
      video.setAttribute("controlslist", "nodownload nofullscreen noremoteplayback");
      const label = told.videos.length > 1 ? pairLabel(index) : "Video";
      video.setAttribute("aria-label", label);
      video.muted = !settings.sound || (settings.together && index > 0);
      video.addEventListener("canplay", onPlayable);
      video.addEventListener("error", onBroken);
      const figure = make("figure", {}, video);
      if (told.videos.length > 1) figure.append(make("figcaption", { textContent: label }));
      box.append(figure);
      players.push(video);
    });
    // Nothing is built into the page that asks for the next videos before these have come.
    prefetch(next);
    buildAnswers();
    refresh();
  }

  function pairLabel(index) {
    return settings.captions[index];
  }

  function prefetch(urls) {
    for (const old of document.querySelectorAll("video[data-ahead]")) old.remove();
    const wait = () => {
      if (playable === null) return void setTimeout(wait, 300);
      for (const url of urls) {
        const video = make("video", { preload: "auto", muted: true, hidden: true, src: url });
        video.dataset.ahead = "1";
        video.setAttribute("aria-hidden", "true");
        document.body.append(video);
      }
    };
    if (urls.length) setTimeout(wait, 300);
  }

  // ---------------------------------------------------------------- playing

  function onPlayable() {
    if (playable === null && players.every((p) => p.readyState >= 3)) {
      playable = performance.now();
      refresh();
    }
  }

  function onBroken(event) {
    if (event.target.getAttribute("src")) {
      say("A video cannot be played here. Please reload the page, or try another browser.");
    }
  }

  function left() {
    if (!settings.maxPlays) return Infinity;
    // After a reload in the middle the trial may still be seen once.
    return Math.max(settings.maxPlays - plays, watched ? 0 : 1);
  }

  async function play() {
    if (playing || !trial || playable === null || left() <= 0) return;
    playing = true;
    refresh();
    const current = trial;
    const mine = players;
    for (const video of mine) if (video.currentTime) video.currentTime = 0;
    try {
      // Started before anything is waited for: browsers grant sound only to a click's own task.
      const begun = settings.together
        ? Promise.all(mine.map((video) => video.play()))
        : mine[0].play();
      const counted = insist("played", { position: current.position });
      await begun;
      plays = (await counted).plays;
      if (settings.together) await together(mine);
      else await inTurn(mine);
      if (trial !== current) return;
      await insist("watched", { position: current.position });
      if (trial === current) watched = true;
    } catch (problem) {
      if (trial === current) {
        for (const video of mine) video.pause();
        say(problem instanceof Problem ? problem.message : "The videos did not play. Please try again.");
      }
    }
    if (trial === current) {
      playing = false;
      refresh();
    }
  }

  function ended(video) {
    return new Promise((done) => {
      if (video.ended) done();
      video.addEventListener("ended", done, { once: true });
      video.addEventListener("emptied", done, { once: true });
    });
  }

  async function together(mine) {
    const lead = mine[0];
    const keep = setInterval(() => {
      for (const video of mine.slice(1)) {
        const apart = video.currentTime - lead.currentTime;
        if (!video.ended && !lead.ended && Math.abs(apart) > DRIFT) video.currentTime = lead.currentTime;
      }
      // A video that waits for data holds the others.
      const stalled = mine.some((video) => !video.ended && video.readyState < 3);
      for (const video of mine) {
        if (stalled && !video.paused && video.readyState >= 3) video.pause();
        if (!stalled && video.paused && !video.ended) video.play().catch(() => {});
      }
    }, 100);
    try {
      await Promise.all(mine.map(ended));
    } finally {
      clearInterval(keep);
    }
  }

  async function inTurn(mine) {
    await ended(mine[0]);
    for (const video of mine.slice(1)) {
      await video.play();
      await ended(video);
    }
  }

  // ---------------------------------------------------------------- answering

  // The form of a question: a field, and a function that reads its answer, null while it is
  // missing. A question says by name which form it takes, and brings the form's data.
  const FORMS = { choice: choiceForm, lists: listsForm, text: textForm };
  let read = {}; // question id -> function

  function buildAnswers() {
    const form = el("answers");
    form.replaceChildren();
    read = {};
    settings.questions.forEach((question, number) => {
      const field = make("fieldset", {}, make("legend", { textContent: question.text }));
      read[question.id] = FORMS[question.form](field, question, number);
      form.append(field);
    });
  }

  function choiceForm(field, question, number) {
    const row = make("div", { className: "choices" });
    const inputs = question.values.map((value, index) => {
      const input = make("input", { type: "radio", name: question.id, value: String(value) });
      const name = make("span", { textContent: question.labels[index] });
      const label = make("label", { className: "choice" }, input, name);
      if (number === 0) {
        const key = make("kbd", { textContent: String(index + 1) });
        key.setAttribute("aria-hidden", "true");
        label.append(key);
      }
      row.append(label);
      return input;
    });
    field.append(row);
    return () => {
      const index = inputs.findIndex((input) => input.checked);
      return index < 0 ? null : question.values[index];
    };
  }

  function textForm(field, question) {
    const input = make("input", { type: "text", maxLength: question.most, autocomplete: "off" });
    input.id = `${question.id}-typed`;
    input.setAttribute("aria-label", question.label);
    input.autocapitalize = "none";
    input.spellcheck = false;
    field.append(input);
    return () => (input.value.trim() ? input.value : null);
  }

  function listsForm(field, question) {
    const grid = make("div", { className: "words" });
    const selects = question.lists.map((words, place) => {
      const id = `${question.id}-${place}`;
      const select = make("select", { id }, make("option", { value: "", textContent: "choose …" }));
      select.append(make("option", { value: "?", textContent: "cannot tell" }));
      for (const word of words) select.append(make("option", { value: word, textContent: word }));
      const label = make("label", { htmlFor: id, textContent: question.labels[place] });
      grid.append(make("div", {}, label, select));
      return select;
    });
    field.append(grid);
    return () => {
      const words = selects.map((select) => select.value);
      return words.includes("") ? null : words.map((word) => (word === "?" ? "" : word));
    };
  }

  // The answers as they are sent; null while one is missing.
  function collect() {
    const given = Object.entries(read).map(([id, answer]) => [id, answer()]);
    return given.some(([, value]) => value === null) ? null : Object.fromEntries(given);
  }

  function refresh() {
    if (!trial) return;
    const given = collect();
    el("next").disabled = busy || !watched || given === null;
    el("play").disabled = playing || playable === null || left() <= 0;
    const many = trial.videos.length > 1;
    const what = many ? (settings.together ? "both videos" : "both videos in turn") : "the video";
    el("play-label").textContent = playing ? "Playing …" : plays ? `Play ${what} again` : `Play ${what}`;
    el("plays").textContent = settings.maxPlays ? `${Math.max(0, left())} of ${settings.maxPlays} plays left` : "";
    if (playable === null) el("hint").textContent = "The videos are loading.";
    else if (!watched) el("hint").textContent = "Watch to the end before you answer.";
    else el("hint").textContent = given === null ? "Please answer, then go on." : "";
  }

  async function send(event) {
    event.preventDefault();
    const given = collect();
    if (busy || !trial || !watched || given === null) return;
    busy = true;
    refresh();
    const body = {
      position: trial.position,
      answers: given,
      responseMs: Math.max(0, Math.round(performance.now() - (playable === null ? shownAt : playable))),
    };
    try {
      const told = await insist("answer", body);
      busy = false;
      if (told.feedback) {
        following = told.state;
        clearPlayers();
        el("answers").hidden = true;
        el("next").hidden = true;
        el("play").disabled = true;
        el("hint").textContent = "";
        el("feedback-text").textContent = told.feedback;
        el("feedback").hidden = false;
        el("go-on").focus();
      } else {
        show(told.state);
      }
    } catch (problem) {
      busy = false;
      if (problem.status === 401) await load();
      say(problem.message);
      refresh();
    }
  }

  // ---------------------------------------------------------------- keys and forms

  const CHOICES = (settings.questions[0].values || []).length;
  el("keys").textContent = CHOICES
    ? `Keys: P plays, 1 to ${CHOICES} choose${CHOICES === 2 ? " (or the left and right arrow)" : ""}, N goes on.`
    : "Keys: Tab moves between the words; type a word's first letter in a list to choose it.";
  el("shortcuts").closest("p").hidden = !CHOICES;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (!CHOICES || !el("shortcuts").checked || el("trial").hidden || !el("feedback").hidden) return;
    if (event.target.matches("input[type=text], input:not([type]), select, textarea")) return;
    const radios = el("answers").querySelectorAll(`input[name="${settings.questions[0].id}"]`);
    let index = "123456789".indexOf(event.key);
    if (index < 0 && CHOICES === 2 && !event.target.matches("input[type=radio]")) {
      index = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
    }
    if (index >= 0 && index < CHOICES) {
      radios[index].checked = true;
      radios[index].focus();
      refresh();
      event.preventDefault();
    } else if (event.key.toLowerCase() === "p") {
      play();
      event.preventDefault();
    } else if (event.key.toLowerCase() === "n") {
      if (!el("next").disabled) el("answers").requestSubmit();
      event.preventDefault();
    }
  });

  el("play").addEventListener("click", play);
  el("answers").addEventListener("submit", send);
  el("answers").addEventListener("input", refresh);
  el("go-on").addEventListener("click", () => show(following));

  const startKey = drawKey();
  el("agree-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    el("begin").disabled = true;
    try {
      const state = await insist("start", { agreed: el("agree").checked, key: startKey });
      busy = false;
      show(state);
    } catch (problem) {
      say(problem.message);
    }
    busy = false;
    el("begin").disabled = false;
  });

  el("code-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const state = await ask("resume", { code: el("code").value });
      say("");
      show(state);
    } catch (problem) {
      say(problem.message);
    }
  });

  el("delete-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      show(await ask("delete", { confirmed: el("sure").checked }));
    } catch (problem) {
      say(problem.message);
    }
  });

  async function load() {
    try {
      show(await insist("state"), false);
    } catch (problem) {
      say(problem.message);
    }
  }
  load();
})();
