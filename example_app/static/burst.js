// A burst that goes out: it is sent, and drawn from what the answer tells of it, line by line.

import { byId, chosen, fromTemplate, linesOf, made, part, post, secondsSince, set, shown, write } from "./pieces.js";

const SVG = "http://www.w3.org/2000/svg";
const LANES = 5; // of a channel: messages on their way at the same time
const LANE_PX = 9;
const CAUSES = {
  bucket: "until its bucket has room",
  route: "that kind of call was refused",
  global: "the global limit",
  answer: "waiting for an answer to learn from",
  stopped: "everything was refused",
  banned: "the address is banned",
  retry: "before another attempt",
  invalid: "too many invalid requests",
};
const TROUBLES = { refusal: "a 429 out of nowhere", hash: "a new hash for the bucket", failure: "a 503" };

const kindOf = (status) => (status === 429 ? "refused" : status < 400 ? "ok" : "failed");

// One channel of a burst: a bar for each trip of a message, and behind them how many have not left yet

class Strip {
  constructor({ name, messages }) {
    this.messages = messages;
    this.trips = [];
    this.answered = 0;
    this.left = new Set();
    this.steps = [[0, messages]]; // from when on so many were in line
    this.root = fromTemplate("strip");
    this.svg = this.root.querySelector("svg");
    this.shade = this.root.querySelector(".shade");
    this.ideal = this.root.querySelector(".ideal");
    this.name = /^\d+$/.test(name) ? name : `#${name}`;
    this.svg.style.height = `${LANES * LANE_PX}px`;
    write(part(this.root, "name"), this.name);
  }

  get waiting() {
    return this.messages - this.left.size;
  }

  sent({ number, at }) {
    const lane = Array.from({ length: LANES }, (_, each) => each).find((each) => this.trips.every((trip) => trip.lane !== each || trip.until !== null)) ?? 0;
    const bar = document.createElementNS(SVG, "rect");
    bar.append(document.createElementNS(SVG, "title"));
    this.svg.append(bar);
    this.trips.push({ number, from: at, until: null, lane, bar });
    this.left.add(number);
    this.steps.push([at, this.waiting]);
  }

  arrived({ number, at, status, bucket, limit, remaining }) {
    const trip = this.trips.findLast((each) => each.number === number && each.until === null);
    if (trip === undefined) return;
    trip.until = at;
    trip.bar.dataset.kind = kindOf(status);
    write(trip.bar.firstChild, `Message ${number + 1}: ${status} after ${Math.round((at - trip.from) * 1000)} ms`);
    this.answered += status < 400;
    if (bucket) write(part(this.root, "bucket"), `bucket ${bucket.slice(0, 8)}, ${remaining} of ${limit} left`);
    this.say("", "");
  }

  // What the client's queue says, while somebody is in it.
  say(cause, seconds) {
    const done = this.answered === this.messages;
    this.root.toggleAttribute("data-done", done);
    const why = cause === "bucket" && seconds > 0 ? `, next in ${shown(seconds)}` : `: ${CAUSES[cause] ?? cause}`;
    if (cause) write(part(this.root, "state"), `${this.waiting} in line${why}`);
    else if (this.waiting === 0) write(part(this.root, "state"), done ? `all ${this.messages} sent` : "the last are on their way");
    this.svg.setAttribute("aria-label", `${this.name}: ${this.answered} of ${this.messages} answered`);
  }

  draw(now, span, ideal) {
    const [width, height] = [this.svg.clientWidth, LANES * LANE_PX];
    const x = (at) => ((width * at) / span).toFixed(1);
    for (const { from, until, lane, bar } of this.trips) {
      const long = Math.max(4, x((until ?? Math.max(now, from)) - from));
      set(bar, { x: x(from), y: lane * LANE_PX + 1, width: long, height: LANE_PX - 2, rx: 2 });
    }
    const y = (count) => (height * (1 - count / this.messages)).toFixed(1);
    const steps = this.steps.map(([at, count], each) => `H${x(at)}${each ? `V${y(count)}` : ""}`).join("");
    this.shade.setAttribute("d", `M0 ${height}V0${steps}H${x(this.waiting ? now : this.steps.at(-1)[0])}V${height}Z`);
    this.ideal.toggleAttribute("hidden", ideal === null);
    if (ideal !== null) set(this.ideal, { x1: x(ideal), x2: x(ideal), y1: 0, y2: height });
  }
}

class Burst {
  constructor({ channels, messages, ideal }) {
    this.beganAt = performance.now();
    this.endedAt = null;
    Object.assign(this, { messages, ideal, refused: 0, events: 0 });
    this.told = new Map(); // what was told, and how often
    this.strips = channels.map((channel) => new Strip(channel));
    byId("strips").replaceChildren(...this.strips.map(({ root }) => root), this.#axis());
    byId("strips-empty").hidden = true;
    byId("legend").hidden = byId("told").hidden = false;
    part(byId("told"), "events").replaceChildren();
    write(part(byId("told"), "count"), "0");
  }

  #axis() {
    const item = made("li", "", "axis");
    this.axis = document.createElementNS(SVG, "svg");
    this.axis.setAttribute("aria-hidden", "true");
    item.append(this.axis);
    return item;
  }

  take(line) {
    const strip = this.strips[line.channel];
    if (line.kind === "sent") strip.sent(line);
    if (line.kind === "answered") {
      strip.arrived(line);
      this.refused += line.status === 429;
    }
    if (line.kind === "queue") for (const { channel, cause, seconds } of line.lines) this.strips[channel].say(cause, seconds);
    if (line.kind === "trouble") this.#tell(line, "trouble", TROUBLES[line.what]);
    if (line.kind === "lost") this.#tell(line, "lost", `message ${line.number + 1}: ${line.why}`);
    if (line.kind === "event") {
      const wait = line.seconds > 0 ? `, ${shown(line.seconds)}` : "";
      this.#tell(line, line.what, `${line.status ? `${line.status}, ` : ""}${CAUSES[line.cause] ?? line.cause}${wait}`);
    }
    if (line.kind === "end") this.#end(line);
  }

  // However it has ended: the clock stands.
  stop() {
    this.endedAt ??= secondsSince(this.beganAt);
  }

  draw() {
    const now = this.endedAt ?? secondsSince(this.beganAt);
    const span = Math.max(now, this.ideal ?? 0, 1) * 1.03;
    for (const strip of this.strips) strip.draw(now, span, this.ideal);
    this.#drawAxis(span);
    const sum = (count) => String(this.strips.reduce((all, strip) => all + count(strip), 0));
    const figures = byId("figures");
    write(part(figures, "answered"), sum(({ answered }) => answered));
    write(part(figures, "messages"), String(this.messages));
    write(part(figures, "waiting"), sum(({ waiting }) => waiting));
    write(part(figures, "refused"), String(this.refused));
    figures.dataset.refused = this.refused > 0 ? "some" : "none";
    write(part(figures, "took"), now.toFixed(1));
    write(part(figures, "ideal"), this.ideal === null ? "" : `, ideal ${this.ideal.toFixed(1)} s`);
  }

  #drawAxis(span) {
    const width = this.axis.clientWidth;
    const every = [0.5, 1, 2, 5, 10].find((step) => (step / span) * width > 44) ?? 20;
    const ticks = Array.from({ length: Math.floor(span / every) + 1 }, (_, tick) => tick * every);
    if (this.axis.children.length !== ticks.length) {
      this.axis.replaceChildren(...ticks.map(() => document.createElementNS(SVG, "text")));
    }
    ticks.forEach((at, tick) => {
      set(this.axis.children[tick], { x: ((width * at) / span).toFixed(1), y: 12 });
      write(this.axis.children[tick], tick ? `${at} s` : "0");
    });
  }

  #tell({ at, channel }, what, text) {
    this.events += 1;
    write(part(byId("told"), "count"), String(this.events));
    const where = channel === undefined ? "" : `${this.strips[channel].name}: `;
    const same = `${at.toFixed(1)} ${what} ${where}${text}`;
    const { item, times } = this.told.get(same) ?? { item: made("li", ""), times: 0 };
    this.told.set(same, { item, times: times + 1 });
    if (times > 0) {
      write(item.lastChild, `\u00d7 ${times + 1}`);
      return;
    }
    item.dataset.kind = what;
    item.append(made("span", at.toFixed(2)), made("b", what), made("span", `${where}${text}`), made("span", ""));
    part(byId("told"), "events").prepend(item);
  }

  #end({ at, delivered, lost, refused, failed }) {
    this.endedAt = at;
    const best = this.ideal === null ? "" : `; the limits alone ask for ${this.ideal.toFixed(1)} s`;
    const bad = [failed && `${failed} failed and went again`, lost && `${lost} were lost`].filter(Boolean).join(", ");
    const were = refused === 0 ? "no 429" : refused === 1 ? "one 429" : `${refused} 429s`;
    write(byId("burst-said"), `${delivered} of ${this.messages} delivered with ${were} in ${at.toFixed(2)} s${best}.${bad ? ` ${bad}.` : ""}`);
  }
}

let burst = null;

export const drawBurst = () => burst?.draw();

export async function send(form) {
  const { messages, channels = 1, ...rest } = chosen(form);
  const real = form.dataset.real;
  if (real && !confirm(`Send ${messages} messages to the real channel ${real}?`)) return;
  const response = await post("/discord/bursts", { messages: Number(messages), channels: Number(channels), ...rest, confirmed: Boolean(real) });
  if (response.status === 429) {
    const { retry_after: wait } = await response.json();
    write(byId("burst-said"), `That was too fast for this page's own limit. Send the next one in ${shown(wait)}.`);
    return;
  }
  if (!response.ok) throw new Error(`the app has answered ${response.status}`);
  write(byId("burst-said"), "");
  try {
    for await (const line of linesOf(response)) {
      if (line.kind === "begin") burst = new Burst(line);
      else burst.take(line);
    }
  } finally {
    burst?.stop();
  }
}
