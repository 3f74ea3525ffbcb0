// A door that is hammered: its answers, the refusals so far, and the ban.

import { Ladder, listAnswer } from "./answers.js";
import { byId, part, post, secondsSince, shown, write } from "./pieces.js";

const PAUSE_MS = 60; // between two knocks
const door = byId("door");
const [after, within] = [Number(door.dataset.after), Number(door.dataset.within)];
const ladder = new Ladder(document.querySelector(".bans .ladder"));

let refusals = []; // when this page was refused, since the last ban
let ban = { seconds: 0, readAt: 0 };
let was = "open";

export function showBan(seconds) {
  ban = { seconds, readAt: performance.now() };
  if (seconds > 0) ladder.show(seconds);
}

const left = () => Math.max(0, ban.seconds - secondsSince(ban.readAt));

export function drawDoor() {
  const isBanned = left() > 0;
  refusals = isBanned ? [] : refusals.filter((moment) => secondsSince(moment) < within);
  const used = isBanned ? after : refusals.length;
  [...part(door, "drops").children].forEach((drop, place) => drop.toggleAttribute("data-used", place < used));
  write(part(door, "refusals"), isBanned ? "too many" : used ? `${used} of ${after} until a ban` : "none lately");
  const text = part(door, "ban");
  text.closest("div").toggleAttribute("data-blocked", isBanned);
  if (isBanned) was = "closed";
  write(text, isBanned ? `closed to you for ${shown(left())}` : was === "closed" ? "open to you again" : "open to you");
}

async function knock() {
  const response = await post("/api/knock", {});
  const body = await response.json();
  const wait = body.retry_after ?? 0;
  if (!response.ok && response.status !== 429) throw new Error(`the app has answered ${response.status}`);
  if (response.status === 429 && wait < Math.min(...ladder.blocks) / 2) refusals.push(performance.now());
  listAnswer("knocks", response.status, "Knock", response.ok ? "let in" : `refused, retry after ${shown(wait)}`);
  return response.ok;
}

export async function hammer(times, look) {
  let letIn = 0;
  for (let turn = 0; turn < times; turn += 1) {
    letIn += await knock();
    if (turn + 1 < times) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  await look();
  const end = left() > 0 ? `, and you are banned for ${shown(left())}` : "";
  write(byId("bans-said"), times === 1 ? `One knock: ${letIn ? "let in" : "refused"}${end}.` : `${times} knocks: ${letIn} let in, ${times - letIn} refused${end}.`);
}
