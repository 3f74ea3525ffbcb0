// The page about protection: its forms, its look at the app once a second, and all that moves.

import { drawDoor, hammer, showBan } from "./bans.js";
import { startExports, showSlots } from "./exports.js";
import { drawPlaces, lookAtPlaces, tryToLogIn } from "./log_ins.js";
import { byId, keepDrawing, write } from "./pieces.js";
import { raise, showUsualLoad } from "./storm.js";

const LOOK_MS = 1000;

function wire(buttons, said, act) {
  const run = async (event) => {
    event.preventDefault();
    for (const button of buttons) button.disabled = true;
    try {
      await act(event);
    } catch (error) {
      write(said, `That did not work: ${error.message}.`);
    }
    for (const button of buttons) button.disabled = false;
    if (document.activeElement === document.body) (event.submitter ?? event.target).focus(); // a button that is turned off loses it
  };
  for (const button of buttons) button.disabled = false;
  return run;
}

for (const name of ["storm", "log-in"]) {
  const form = byId(name);
  const act = name === "storm" ? raise : tryToLogIn;
  form.addEventListener("submit", wire([...form.querySelectorAll("button")], byId(`${name}-said`), act));
}
for (const button of document.querySelectorAll("[data-exports]")) {
  button.disabled = false;
  button.addEventListener("click", () => startExports(Number(button.dataset.exports), look));
}
const knockers = [...document.querySelectorAll("[data-knocks]")];
const knock = wire(knockers, byId("bans-said"), (event) => hammer(Number(event.target.dataset.knocks), look));
for (const button of knockers) button.addEventListener("click", knock);
for (const account of document.querySelectorAll("[name=account]")) account.addEventListener("change", lookAtPlaces);

let timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    const response = await fetch("/api/protection", { cache: "no-store" });
    if (response.ok) {
      const { in_flight: own, in_flight_of_address: ofAddress, banned_for: bannedFor, load } = await response.json();
      showSlots(own, ofAddress);
      showBan(bannedFor);
      showUsualLoad(load);
    }
    byId("offline").hidden = true;
  } catch {
    byId("offline").hidden = false;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, LOOK_MS);
}

document.addEventListener("visibilitychange", () => document.hidden || look());
look();
lookAtPlaces();
keepDrawing(() => {
  drawPlaces();
  drawDoor();
});
