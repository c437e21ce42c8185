// Player of the case inspector: plays the clip that Python sends, seeks to frames, turns keys into steps, remembers the rater.

const TYPED = "input, textarea, select, [contenteditable]";
const STEPS = { n: "next", ArrowRight: "next", p: "previous", ArrowLeft: "previous" };

function make(tag, cls, parent) {
  const node = document.createElement(tag);
  node.className = cls;
  parent.appendChild(node);
  return node;
}

function remembered(place) {
  try {
    return JSON.parse(localStorage.getItem(`expstar-inspector:${place}`)) || {};
  } catch {
    return {};
  }
}

function remember(place, what) {
  try {
    localStorage.setItem(`expstar-inspector:${place}`, JSON.stringify({ ...remembered(place), ...what }));
  } catch { /* a browser that keeps nothing */ }
}

function render({ model, el }) {
  el.classList.add("es-player");
  const video = make("video", "es-video", el);
  video.controls = video.loop = video.playsInline = true;
  video.preload = "auto";
  const said = make("p", "es-message", el);
  const root = () => el.closest(".es-root") || el;
  let url = "";
  let waiting = 0;

  function showClip() {
    const clip = model.get("clip");
    if (url) URL.revokeObjectURL(url);
    url = clip && clip.byteLength ? URL.createObjectURL(new Blob([clip], { type: model.get("mime") })) : "";
    if (url) video.src = url;
    else video.removeAttribute("src");
    video.load();
    video.classList.toggle("es-empty", !url);
  }

  function showMessage() {
    said.textContent = model.get("message");
  }

  function ask() { // for the clip, once the case has stood still for a moment
    clearTimeout(waiting);
    waiting = setTimeout(() => model.send({ kind: "want", id: model.get("case_id") }), 60);
  }

  function changeCase() {
    remember(model.get("place"), { id: model.get("case_id") });
    ask();
  }

  function frames() {
    return [...root().querySelectorAll(".es-frame")];
  }

  function markFrame() {
    const shown = frames();
    const near = (button) => Math.abs(Number(button.dataset.seek) - video.currentTime);
    const nearest = shown.length && shown.reduce((a, b) => (near(b) < near(a) ? b : a));
    for (const button of shown) button.classList.toggle("es-now", button === nearest);
  }

  function click(event) {
    const ours = root();
    if (!ours.contains(event.target)) return;
    if (!ours.contains(document.activeElement)) { // so that keys come here, also in JupyterLab
      ours.tabIndex = -1;
      ours.focus({ preventScroll: true });
    }
    const frame = event.target.closest(".es-frame");
    if (!frame) return;
    video.pause();
    video.currentTime = Number(frame.dataset.seek);
  }

  function key(event) {
    const target = event.target;
    const ours = target === document.body || root().contains(target);
    if (!ours || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || target.closest(TYPED)) return;
    if (target === video && event.key.startsWith("Arrow")) return; // the player's own seeking
    const to = STEPS[event.key];
    if (!to) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ kind: "step", to });
  }

  function keepRater() {
    if (model.get("rater")) remember(model.get("place"), { rater: model.get("rater") });
  }

  function broken() {
    if (url) said.textContent = "The browser cannot play this clip.";
  }

  const watched = { "change:clip": showClip, "change:message": showMessage, "change:case_id": changeCase, "change:rater": keepRater };
  for (const [name, act] of Object.entries(watched)) model.on(name, act);
  video.addEventListener("timeupdate", markFrame);
  video.addEventListener("error", broken);
  document.addEventListener("click", click);
  document.addEventListener("keydown", key, true);
  showClip();
  showMessage();
  model.send({ kind: "hello", ...remembered(model.get("place")) });
  ask();

  return () => {
    for (const [name, act] of Object.entries(watched)) model.off(name, act);
    document.removeEventListener("click", click);
    document.removeEventListener("keydown", key, true);
    clearTimeout(waiting);
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
