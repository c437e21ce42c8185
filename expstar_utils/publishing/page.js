// A step's heading seeks the video; the step that is shown is marked; the video may stop at the end of each.
(() => {
  const video = document.querySelector("video");
  if (!video) return;
  const steps = [...document.querySelectorAll(".step")];
  const [pausing, following] = ["pausing", "following"].map((id) => document.getElementById(id));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const start = (step) => Number(step.dataset.start);
  let now = null;
  let allowed = null; // the step that may begin, since the video has stopped before it

  const mark = (step) => {
    if (step === now) return;
    now?.classList.remove("now");
    now?.removeAttribute("aria-current");
    now = step;
    if (!now) return;
    now.classList.add("now");
    now.setAttribute("aria-current", "step");
    if (following.checked && !video.paused) now.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  };

  video.addEventListener("timeupdate", () => {
    const next = steps.filter((step) => start(step) <= video.currentTime + 0.02).pop() ?? null;
    const goesOn = now && next && steps.indexOf(next) === steps.indexOf(now) + 1 && !video.seeking && !video.paused;
    if (pausing.checked && goesOn && next !== allowed && video.currentTime - start(next) < 1) {
      allowed = next;
      video.pause();
      video.currentTime = Math.max(start(next) - 0.04, start(now));
      return;
    }
    mark(next);
  });
  for (const step of steps) {
    step.querySelector("button").addEventListener("click", () => {
      allowed = step;
      video.currentTime = start(step) + 0.01; // exactly at the start, the caption before it is shown too
      mark(step);
      video.play().catch(() => {});
    });
  }
  video.addEventListener("error", () => { document.querySelector(".trouble").hidden = false; });
})();
