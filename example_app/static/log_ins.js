// Attempts to log in: how many each place has left, how long it is blocked, and the last answers.

import { Ladder, listAnswer } from "./answers.js";
import { byId, chosen, made, part, post, secondsSince, shown, write } from "./pieces.js";

const NAMES = { stranger: "a stranger", phone: "her phone" };

const places = new Map(); // their last states
const ladder = new Ladder(byId("ladder"));

const account = () => chosen(byId("log-in")).account;

function note(place, outcome) {
  places.set(place, { ...outcome, readAt: performance.now() });
  if (place === "stranger" && outcome.blocked_for > 0) ladder.show(outcome.blocked_for);
}

export async function lookAtPlaces() {
  const wanted = account();
  const response = await fetch(`/protection/log-ins/${wanted}`, { cache: "no-store" });
  if (!response.ok || wanted !== account()) return;
  if (lookAtPlaces.last !== wanted) ladder.clear();
  lookAtPlaces.last = wanted;
  for (const [place, outcome] of Object.entries(await response.json())) note(place, outcome);
}

export function drawPlaces() {
  for (const [place, { left, limit, blocked_for: blocked, readAt }] of places) {
    const root = document.querySelector(`[data-place="${place}"]`);
    const drops = part(root, "drops");
    if (drops.children.length !== limit) drops.replaceChildren(...Array.from({ length: limit }, () => made("i", "")));
    const wait = blocked - secondsSince(readAt);
    if (blocked > 0 && wait <= 0) {
      places.set(place, { left: limit, limit, blocked_for: 0, readAt });
      lookAtPlaces();
    }
    root.toggleAttribute("data-blocked", wait > 0);
    [...drops.children].forEach((drop, each) => drop.toggleAttribute("data-left", wait <= 0 && each < left));
    write(part(root, "text"), wait > 0 ? `blocked for ${shown(wait)}` : `${left} of ${limit} tries left`);
  }
}

const answerOf = ({ status, left, blocked_for: wait }) => {
  if (status === 429) return `refused, retry after ${Math.ceil(wait)} s`;
  if (status === 200) return "welcome";
  return wait > 0 ? `wrong, and blocked for ${Math.round(wait)} s` : `wrong, ${left} left`;
};

function show(place, right, outcome) {
  listAnswer("tries", outcome.status, `${right ? "Right" : "Wrong"} password, ${NAMES[place]}`, answerOf(outcome));
  write(byId("log-in-said"), `${right ? "The right password" : "A wrong password"} from ${NAMES[place]}: ${answerOf(outcome)}.`);
}

export async function tryToLogIn(event) {
  const { account: name, place } = chosen(event.target);
  const tries = event.submitter?.value ?? "1";
  const right = tries === "right";
  for (let turn = 0; turn < (right ? 1 : Number(tries)); turn += 1) {
    const response = await post("/protection/log-ins", { account: name, place, right });
    if (!response.ok) throw new Error(`the app has answered ${response.status}`);
    const outcome = await response.json();
    note(place, outcome);
    show(place, right, outcome);
  }
}
