// The live page: one WebRTC connection to this server, sound there, picture and sound back.
"use strict";

const byId = (id) => document.getElementById(id);
const video = byId("video");
const controls = byId("controls");

const WAIT_MILLISECONDS = 100;

/** What one connection holds; null while there is none. */
let live = null;

function chosen(name) {
  return controls.elements[name].value;
}

function say(text) {
  byId("state").textContent = text;
}

function complain(text) {
  byId("message").textContent = text;
}

/** The mood as the server takes it, such as "happy:0.5". */
function mood() {
  return `${byId("mood").value}:${byId("strength").value}`;
}

function update() {
  byId("start").disabled = live !== null;
  byId("stop").disabled = live === null;
  byId("interrupt").disabled = live === null || !live.connected;
  byId("picture-set").disabled = live !== null;
  byId("sound-set").disabled = live !== null;
  byId("head-motion").disabled = live !== null;
  byId("manner-set").hidden = byId("manner-set").disabled = chosen("picture") === "camera";
  byId("camera-hint").hidden = chosen("picture") !== "camera";
  byId("strength").disabled = byId("mood").value === "neutral";
  for (const name of ["strength", "head-motion"]) {
    const text = `× ${byId(name).value}`;
    byId(`${name}-value`).textContent = text;
    byId(name).setAttribute("aria-valuetext", text);
  }
  byId("picture-set").classList.toggle("with-file", chosen("picture") === "own");
  byId("sound-set").classList.toggle("with-file", chosen("sound") === "file");
  byId("numbers").hidden = live === null;
}

/** A file's bytes in base64, or null for the bundled portrait. */
async function pictureBytes(limit) {
  if (chosen("picture") !== "own") return null;
  const file = byId("picture-file").files[0];
  if (!file) throw new Error("Choose a picture file first.");
  if (file.size > limit) {
    throw new Error(`The picture is larger than ${Math.floor(limit / 1048576)} MiB; choose a smaller one.`);
  }
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The picture cannot be read."));
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

/** Fills `session` with a stream of the microphone or of the file. */
async function openSound(session) {
  if (chosen("sound") === "microphone") {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give a microphone only to https pages and to localhost; choose a file.");
    }
    try {
      session.input = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
      });
    } catch (problem) {
      throw new Error(`The microphone cannot be used (${problem.name}); allow it, or choose a file.`);
    }
    return;
  }
  const file = byId("sound-file").files[0];
  if (!file) throw new Error("Choose a sound file first.");
  session.context = new AudioContext({ sampleRate: 48000 });
  await session.context.resume();
  let sound;
  try {
    sound = await session.context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error("This browser cannot decode the sound file; choose a WAV, MP3 or M4A.");
  }
  const sink = session.context.createMediaStreamDestination();
  session.source = session.context.createBufferSource();
  session.source.buffer = sound;
  session.source.connect(sink);
  session.source.onended = () => {
    session.source = null;
    if (live === session) say("The sound is over");
  };
  session.input = sink.stream;
}

/** Fills `session` with a stream of the camera, if that is what is to speak. */
async function openCamera(session) {
  if (chosen("picture") !== "camera") return;
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give a camera only to https pages and to localhost; choose a picture.");
  }
  try {
    session.camera = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 25 } },
    });
  } catch (problem) {
    throw new Error(`The camera cannot be used (${problem.name}); allow it, or choose a picture.`);
  }
  byId("preview").srcObject = session.camera;
  byId("preview").hidden = false;
}

async function start() {
  complain("");
  const session = { connected: false, id: null, timers: [] };
  live = session;
  update();
  say("Connecting");
  try {
    const config = await (await fetch("config")).json();
    const picture = await pictureBytes(config.upload_bytes);
    await openCamera(session);
    await openSound(session);
    if (live !== session) return stop(session);
    const peer = new RTCPeerConnection({ iceServers: config.ice_servers });
    session.peer = peer;
    for (const track of session.input.getAudioTracks()) peer.addTrack(track, session.input);
    if (session.camera) peer.addTrack(session.camera.getVideoTracks()[0], session.camera);
    else peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = (event) => {
      // Browsers keep sound back for longer than pictures, and bring the two together only by and
      // by. The same wait for both has lips and sound together from the start.
      event.receiver.jitterBufferTarget = WAIT_MILLISECONDS;
      if (video.srcObject !== event.streams[0]) video.srcObject = event.streams[0];
      video.play().catch(() => complain("Press play: the browser does not start sound by itself."));
    };
    peer.onconnectionstatechange = () => {
      if (live !== session) return;
      if (peer.connectionState === "connected") connected(session);
      if (peer.connectionState === "failed") {
        complain("The connection failed: browser and server find no way to each other.");
        stop(session);
      }
    };
    session.channel = peer.createDataChannel("control");
    session.channel.onmessage = (event) => receive(session, JSON.parse(event.data));
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const body = { sdp: peer.localDescription.sdp, type: "offer" };
    if (session.camera) {
      body.camera = true;
    } else {
      session.mood = body.mood = mood();
      body.head_motion = Number(byId("head-motion").value);
    }
    if (picture !== null) body.picture = picture;
    const answer = await fetch("offer", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error.message);
    session.id = content.id;
    if (live !== session) return stop(session);
    complain(content.warnings.map(({ message }) => `Note: ${message}.`).join(" "));
    byId("delay").textContent = `${Math.round(1000 * content.delay_seconds)} ms`;
    await peer.setRemoteDescription({ type: "answer", sdp: content.sdp });
  } catch (problem) {
    complain(problem.message);
    stop(session);
  }
}

/** Resolves when the local candidates are known, or after two seconds with those found by then. */
function gathered(peer) {
  return new Promise((resolve) => {
    const done = () => {
      if (peer.iceGatheringState === "complete") resolve();
    };
    peer.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, 2000);
    done();
  });
}

function connected(session) {
  session.connected = true;
  say("Listening");
  tellMood(session);
  if (session.source) session.source.start();
  let frames = 0;
  let time = performance.now();
  session.timers.push(
    setInterval(() => {
      const now = performance.now();
      const count = video.getVideoPlaybackQuality().totalVideoFrames;
      byId("rate").textContent = ((1000 * (count - frames)) / (now - time)).toFixed(1);
      frames = count;
      time = now;
    }, 1000),
    setInterval(() => send(session, { type: "ping" }), 5000),
  );
  update();
}

function send(session, message) {
  if (session.channel && session.channel.readyState === "open") {
    session.channel.send(JSON.stringify(message));
  }
}

/** Tells a mood that was chosen since the offer; the channel may open after the connection. */
function tellMood(session) {
  if (session.channel.readyState !== "open") {
    session.channel.onopen = () => tellMood(session);
  } else if (!session.camera && mood() !== session.mood) {
    session.mood = mood();
    send(session, { type: "mood", mood: session.mood });
  }
}

function receive(session, message) {
  if (live !== session) return;
  if (message.type === "state") {
    say(message.state === "speaking" ? "Speaking" : "Listening");
  } else if (message.type === "stats") {
    if (message.step_median_seconds !== null) {
      byId("step").textContent = `${(1000 * message.step_median_seconds).toFixed(1)} ms`;
    }
    const lost = message.pictures.dropped + message.network.pictures_dropped;
    byId("dropped").textContent = `${lost} of ${message.pictures.shown + message.pictures.dropped}`;
  } else if (message.type === "error") {
    complain(message.message);
  } else if (message.type === "end") {
    complain(`The session ended: ${message.reason}.`);
    stop(session);
  }
}

function stop(session) {
  for (const timer of session.timers) clearInterval(timer);
  session.timers = [];
  if (session.source) {
    session.source.onended = null;
    if (session.connected) session.source.stop();
    session.source = null;
  }
  if (session.input) for (const track of session.input.getTracks()) track.stop();
  if (session.camera) {
    for (const track of session.camera.getTracks()) track.stop();
    byId("preview").srcObject = null;
    byId("preview").hidden = true;
  }
  if (session.peer) session.peer.close();
  if (session.context && session.context.state !== "closed") session.context.close();
  if (session.id !== null) {
    fetch(`sessions/${session.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
    session.id = null;
  }
  if (live === session) {
    live = null;
    video.srcObject = null;
    say("Not connected");
  }
  update();
}

controls.addEventListener("submit", (event) => {
  event.preventDefault();
  if (live === null) start();
});
controls.addEventListener("change", update);
controls.addEventListener("input", update);
for (const name of ["mood", "strength"]) {
  byId(name).addEventListener("change", () => live && live.connected && tellMood(live));
}
byId("stop").addEventListener("click", () => live && stop(live));
byId("interrupt").addEventListener("click", () => {
  if (!live) return;
  if (live.source) {
    // A file speaks no further; a microphone goes on with what comes next.
    live.source.stop();
  }
  send(live, { type: "reset" });
});
window.addEventListener("pagehide", () => live && stop(live));
update();
