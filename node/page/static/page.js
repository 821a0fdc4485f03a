// The page works without this file: it only draws live parts anew when the node says that something happened.
"use strict";

const BETWEEN = 2000; // milliseconds between two drawings
const freshness = document.getElementById("freshness");
let ready = false;
let timer = 0;

function busy(part) {
  // Nobody's search, opened digest or marked text is taken away.
  const marked = document.getSelection();
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null
    || (marked !== null && !marked.isCollapsed && part.contains(marked.anchorNode));
}

function stage(page) {
  return page.getElementById("main")?.dataset.stage ?? "";
}

async function draw() {
  timer = 0;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (stage(drawn) !== stage(document)) location.reload(); // an action came to its next step: other forms, other parts
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = drawn.getElementById(part.id);
      if (next !== null && next.innerHTML !== part.innerHTML && !busy(part)) {
        part.replaceChildren(...next.childNodes);
      }
    }
    freshness.textContent = answer.ok ? `As of ${new Date().toLocaleTimeString()}.` : "The page could not be drawn anew.";
  } catch {
    freshness.textContent = "The page's server has ended: run collegium dashboard again.";
  }
  again();
}

function again() {
  if (document.querySelector("[data-again]") !== null && timer === 0) timer = setTimeout(draw, BETWEEN);
}

function soon() {
  if (ready && timer === 0) timer = setTimeout(draw, BETWEEN);
}

const events = new EventSource(document.body.dataset.events);
for (const name of ["block", "round", "peer", "motion", "withdrawal", "learner"]) events.addEventListener(name, soon);
events.addEventListener("ready", () => { ready = true; soon(); }); // what happened since the page was made is drawn too
events.addEventListener("daemon", () => { ready = true; soon(); });
window.addEventListener("pagehide", () => events.close());

again();
const print = document.getElementById("print");
if (print !== null) {
  print.hidden = false;
  print.addEventListener("click", () => window.print());
}
