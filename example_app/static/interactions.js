// Interactions that come in: each is sent, and shown as a user of Discord would see it.

import { byId, chosen, fromTemplate, made, part, post, secondsSince, shown, write } from "./pieces.js";

const MOST_TALKS = 20;
const MEANINGS = {
  check: "Discord's check of the endpoint, never limited",
  refused: "Nobody sees anything, and nobody is charged",
  replay: "Only the first was let in, and charged",
  limited: "A 200 all the same: Discord shows no other answer",
  passed: "Let in",
};
const DID = {
  command: "used /tide",
  component: "pressed Refresh",
  autocomplete: "is typing /tide port: b",
  ping: "checks whether anybody is there",
  forged: "pretends to be Discord",
  stale: "delivers what was signed ten minutes ago",
  replay: "delivers the same interaction twice",
};

function relative(until) {
  const left = until - Date.now() / 1000;
  if (Math.abs(left) < 0.5) return "now";
  const count = Math.max(1, Math.round(Math.abs(left)));
  const words = `${count} second${count === 1 ? "" : "s"}`;
  return left > 0 ? `in ${words}` : `${words} ago`;
}

// Discord's markup for a moment, <t:EPOCH:R>, becomes a countdown.
function inWords(content) {
  return content.split(/(<t:\d+:R>)/).map((piece) => {
    const found = /^<t:(\d+):R>$/.exec(piece);
    if (found === null) return piece;
    const moment = made("time", relative(Number(found[1])));
    moment.dataset.until = found[1];
    return moment;
  });
}

function seen({ status, body }) {
  if (status !== 200) return [`Turned away: ${body.message}.`];
  if (body.type === 1) return ["PONG."];
  if (body.type !== 8) return inWords(body.data.content);
  const { choices } = body.data;
  return choices.length ? choices.map(({ name }) => made("span", name, "choice")) : ["No options match your search."];
}

function isLimited({ body }) {
  return body.data?.flags === 64 || body.data?.choices?.length === 0;
}

function kindOf(answer) {
  if (answer.status !== 200) return "refused";
  return answer.body.type === 1 ? "check" : isLimited(answer) ? "limited" : "passed";
}

function talk({ user, case: what }, { sent, answer }) {
  const item = fromTemplate("talk");
  const isTheirs = ["command", "component", "autocomplete"].includes(what);
  const who = isTheirs ? user[0].toUpperCase() + user.slice(1) : what === "ping" ? "Discord" : "Somebody";
  const kind = (item.dataset.kind = kindOf(answer));
  write(part(item, "initial"), isTheirs || what === "ping" ? who[0] : "?");
  write(part(item, "who"), who);
  write(part(item, "did"), DID[what]);
  part(item, "said").append(...seen(answer));
  part(item, "private").hidden = answer.body.data?.flags !== 64;
  write(part(item, "status"), String(answer.status));
  write(part(item, "meaning"), MEANINGS[kind === "refused" && what in MEANINGS ? what : kind]);
  write(part(item, "sent"), `${Object.entries(sent.headers).map(([name, value]) => `${name}: ${value}`).join("\n")}\n\n${JSON.stringify(sent.body)}`);
  write(part(item, "answer"), `${answer.status}\n\n${JSON.stringify(answer.body)}`);
  return item;
}

let allowance = null;

export function drawAllowance() {
  if (allowance === null) return;
  const { who, limit, remaining, reset_after: reset, rate, readAt } = allowance;
  const full = Math.max(0, reset - secondsSince(readAt));
  const left = Math.max(remaining, Math.floor(limit - full * rate + 1e-6));
  const drops = part(byId("allowance"), "drops");
  if (drops.children.length !== limit) drops.replaceChildren(...Array.from({ length: limit }, () => made("i", "")));
  [...drops.children].forEach((drop, each) => drop.toggleAttribute("data-left", each < left));
  write(part(byId("allowance"), "text"), `${who}: ${left} of ${limit} left${full > 0 ? `, full in ${shown(full)}` : ""}`);
}

export async function interact(form) {
  const wanted = chosen(form);
  const response = await post("/discord/tests", wanted);
  if (!response.ok) throw new Error(`the app has answered ${response.status}`);
  const told = await response.json();
  const item = talk(wanted, told);
  const chat = byId("chat");
  chat.hidden = false;
  byId("chat-empty").hidden = true;
  chat.prepend(item);
  while (chat.children.length > MOST_TALKS) chat.lastElementChild.remove();
  allowance = { ...told.left, who: wanted.user[0].toUpperCase() + wanted.user.slice(1), readAt: performance.now() };
  byId("allowance").hidden = false;
}

export function drawCountdowns() {
  for (const moment of document.querySelectorAll("time[data-until]")) write(moment, relative(Number(moment.dataset.until)));
}
