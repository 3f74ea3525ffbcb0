// The dashboard's behaviour: it polls the gauges, lets them flow between two polls, fires calls and lists the answers.

const POLL_MS = 1000;
const MOST_ANSWERS = 80;
const MOST_PIPS = 24;
const MOST_SEGMENTS = 20;
const HUES = 6; // of workers; a seventh shares one
const STAGGER_MS = 4; // between the calls of a burst to several workers: else the first to wake takes all connections
const FLOWING = new Set(["TokenBucket", "LeakyBucket"]);
const CHIPS = {
  "x-ratelimit-remaining": "remaining",
  "x-ratelimit-limit": "of",
  "x-ratelimit-reset-after": "reset after",
  "retry-after": "retry after",
  "x-ratelimit-scope": "scope",
  "x-ratelimit-global": "global",
};

const byId = (id) => document.getElementById(id);
const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
const seconds = (value) => `${(Math.ceil(Math.max(0, value) * 10) / 10).toFixed(1)} s`; // waits are rounded up
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const secondsSince = (moment) => (performance.now() - moment) / 1000;
const write = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

// A bucket as the app last told it, and what has become of it since

class Bucket {
  constructor(reading) {
    Object.assign(this, reading);
    this.readAt = performance.now();
  }

  get resetAfter() {
    return Math.max(0, this.reset_after - secondsSince(this.readAt));
  }

  get retryAfter() {
    return Math.max(0, this.retry_after - secondsSince(this.readAt));
  }

  get level() {
    if (this.resetAfter === 0) return this.limit;
    if (FLOWING.has(this.kind)) return Math.max(0, this.limit - (this.resetAfter * this.count) / this.period);
    return this.retry_after > 0 && this.retryAfter === 0 ? this.remaining + 1 : this.remaining;
  }

  get note() {
    if (this.resetAfter === 0) return "full";
    if (this.level < 1) return `next in ${seconds(this.retryAfter)}`;
    if (this.kind === "LeakyBucket") return `next waits ${seconds(this.delay - secondsSince(this.readAt))}`;
    return this.kind === "FixedWindow" ? `new window in ${seconds(this.resetAfter)}` : `full in ${seconds(this.resetAfter)}`;
  }
}

class Gauge {
  constructor(root) {
    this.root = root;
    this.ring = root.querySelector(".gauge-ring");
    this.fill = root.querySelector(".gauge-fill");
    this.cut = root.querySelector(".gauge-cut");
    this.bucket = null;
  }

  show(reading) {
    if (this.bucket?.limit !== reading.limit) this.#cutInto(reading.limit);
    this.bucket = new Bucket(reading);
    this.draw();
  }

  draw() {
    if (this.bucket === null) return;
    const { level, limit, note } = this.bucket;
    const left = Math.floor(level + 1e-6);
    this.fill.setAttribute("stroke-dasharray", `${((100 * level) / limit).toFixed(2)} 100`);
    this.root.dataset.level = left === 0 ? "none" : left / limit <= 0.34 ? "low" : "some";
    write(part(this.root, "remaining"), left.toLocaleString("en"));
    write(part(this.root, "note"), note);
    if (this.ring.ariaValueNow !== String(left)) this.ring.ariaValueNow = String(left);
  }

  // One piece per call that the bucket holds; where they would be too many, a whole ring.
  #cutInto(limit) {
    const piece = 100 / limit;
    const gap = limit > 10 ? 1.1 : 1.8;
    this.cut.setAttribute("stroke-dasharray", limit > MOST_SEGMENTS ? "none" : `${piece - gap} ${gap}`);
    this.cut.setAttribute("stroke-dashoffset", limit > MOST_SEGMENTS ? 0 : -gap / 2);
    this.ring.ariaValueMax = String(limit);
    write(part(this.root, "limit"), limit.toLocaleString("en"));
  }
}

// How long until the next call is allowed: of all that have refused, the one that opens first

class Countdown {
  constructor(root) {
    this.root = root;
    this.fill = root.querySelector(".countdown-fill");
    this.value = byId("countdown-value");
    this.text = byId("countdown-text");
    this.later = byId("countdown-later");
    this.refusals = new Map();
  }

  get isCounting() {
    return this.refusals.size > 0;
  }

  start({ whose, limit }, wait) {
    // A second refusal of the same bucket does not wind its ring up again.
    const whole = Math.max(wait, this.refusals.get(whose)?.whole ?? 0);
    this.refusals.set(whose, { whose, limit, whole, until: performance.now() + wait * 1000 });
    this.root.dataset.state = "counting";
    this.draw();
  }

  draw() {
    if (!this.isCounting) return;
    const waiting = [...this.refusals.values()]
      .map((refusal) => ({ ...refusal, left: (refusal.until - performance.now()) / 1000 }))
      .sort((one, other) => one.left - other.left);
    for (const { whose } of waiting.filter(({ left }) => left <= 0)) this.refusals.delete(whose);
    if (!this.isCounting) this.#finish(waiting.at(-1).whose);
    else this.#show(...waiting.filter(({ left }) => left > 0));
  }

  #show(first, ...rest) {
    this.fill.setAttribute("stroke-dasharray", `${((100 * first.left) / first.whole).toFixed(2)} 100`);
    write(this.value, first.left.toFixed(first.left < 10 ? 2 : 1));
    write(this.text, `${first.whose} has refused you: ${first.limit.replaceAll(" ", "\u00a0")}.`);
    write(this.later, `Then ${rest.map(({ whose, left }) => `${whose} in ${seconds(left)}`).join(", ")}`);
    this.later.hidden = rest.length === 0;
  }

  #finish(whose) {
    this.root.dataset.state = "ready";
    write(this.value, "");
    write(this.text, `Now. ${whose} lets you pass again.`);
    this.later.hidden = true;
  }
}

// The app's processes, where it has several: each gets a colour when it is first heard of

class Workers {
  constructor() {
    this.hues = new Map();
  }

  tag(worker, text = "") {
    if (!this.hues.has(worker)) this.hues.set(worker, this.hues.size % HUES);
    const tag = byId("worker").content.firstElementChild.cloneNode(true);
    tag.dataset.hue = this.hues.get(worker);
    write(part(tag, "id"), worker);
    write(part(tag, "text"), text);
    return tag;
  }
}

// Where the buckets are kept, and whether that can be reached

class Kept {
  constructor(root) {
    this.root = root;
    this.isShared = "shared" in root.dataset;
    this.isAway = false;
    this.whenWell = root.textContent;
  }

  show(readings) {
    this.isAway = readings.some(({ reason }) => reason === "degraded");
    this.root.toggleAttribute("data-away", this.isAway);
    write(this.root, this.isAway ? "Redis is away, each worker counts alone" : this.whenWell);
  }
}

// What the app has answered, the newest on top

class Answers {
  constructor(list) {
    this.list = list;
    this.workers = new Workers();
    this.counted = { allowed: 0, refused: 0, failed: 0 };
    byId("clear").addEventListener("click", () => this.clear());
  }

  add(answer) {
    this.counted[answer.kind] += 1;
    this.#prepend(this.#item(answer));
    this.#pip(answer);
    this.#settle();
  }

  // What a burst came to, and what each worker had in it.
  sum(all) {
    const shares = sharesOf(all);
    if (all.length < 2 || shares.size === 0) return;
    const item = byId("burst").content.firstElementChild.cloneNode(true);
    write(part(item, "title"), all[0].title);
    write(part(item, "sum"), summed(all));
    for (const [worker, { allowed, calls }] of shares) {
      part(item, "workers").append(this.workers.tag(worker, `${allowed}/${calls}`));
    }
    this.#prepend(item);
    write(document.querySelector(`[data-sum="${all[0].card}"]`), summed(all));
  }

  clear() {
    this.counted = { allowed: 0, refused: 0, failed: 0 };
    this.list.replaceChildren();
    this.#settle();
    byId("burst-search").focus();
  }

  #prepend(item) {
    this.list.prepend(item);
    while (this.list.children.length > MOST_ANSWERS) this.list.lastElementChild.remove();
  }

  #settle() {
    const isEmpty = this.list.children.length === 0;
    this.list.hidden = byId("clear").hidden = isEmpty;
    byId("empty").hidden = !isEmpty;
    for (const kind of ["allowed", "refused"]) write(part(byId("tally"), kind), String(this.counted[kind]));
  }

  #item({ kind, status, method, path, took, headers, worker, body, refusal }) {
    const item = byId("answer").content.firstElementChild.cloneNode(true);
    item.dataset.kind = kind;
    write(part(item, "status"), String(status));
    write(part(item, "method"), method);
    part(item, "path").append(...path.split(/(?=\/)/).flatMap((piece) => [made("wbr", ""), piece]));
    write(part(item, "took"), took < 1 ? `${Math.round(took * 1000)} ms` : `${took.toFixed(2)} s`);
    if (worker) part(item, "worker").append(this.workers.tag(worker));
    if (refusal) write(part(item, "why"), `Refused by ${refusal.whose.replace(/^(The|Your) /, (word) => word.toLowerCase())}, ${refusal.limit}`);
    part(item, "chips").append(...chips(headers));
    part(item, "headers").append(...headers.flatMap(([name, value]) => [made("dt", titled(name)), made("dd", value)]));
    write(part(item, "body"), body);
    return item;
  }

  #pip({ card, kind }) {
    const row = document.querySelector(`[data-pips="${card}"]`);
    const pip = made("i", "");
    pip.dataset.kind = kind;
    row.append(pip);
    if (row.children.length > MOST_PIPS) row.firstElementChild.remove();
  }
}

function sharesOf(all) {
  const shares = new Map();
  for (const { worker, kind } of all.filter((answer) => answer.worker)) {
    const { allowed, calls } = shares.get(worker) ?? { allowed: 0, calls: 0 };
    shares.set(worker, { allowed: allowed + (kind === "allowed"), calls: calls + 1 });
  }
  return shares;
}

function summed(all) {
  const allowed = all.filter(({ kind }) => kind === "allowed").length;
  return `${allowed} of ${all.length} let in, by ${workersOf(all)}`;
}

function workersOf(all) {
  const count = sharesOf(all).size;
  return count > 1 ? `${count} workers ${kept.isAway ? "on their own" : "together"}` : "one worker";
}

function made(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

function chips(headers) {
  const found = new Map(headers);
  return Object.entries(CHIPS)
    .filter(([name]) => found.has(name))
    .map(([name, label]) => {
      const chip = made("span", `${label} `);
      chip.append(made("b", found.get(name)));
      chip.dataset.name = name;
      return chip;
    });
}

function titled(name) {
  return name.replace(/\b[a-z]/g, (letter) => letter.toUpperCase()).replace("Ratelimit", "RateLimit");
}

// The page

const gauges = new Map([...document.querySelectorAll("[data-gauge]")].map((root) => [root.dataset.gauge, new Gauge(root)]));
const kept = new Kept(byId("kept"));
const countdown = new Countdown(byId("countdown"));
const answers = new Answers(byId("answers"));

let pollTimer = 0;
let lastPoll = 0;

async function poll() {
  clearTimeout(pollTimer);
  const turn = (lastPoll += 1);
  try {
    const response = await fetch("/api/gauges", { cache: "no-store" });
    if (!response.ok) throw new Error(`the gauges answered ${response.status}`);
    const readings = await response.json();
    if (turn !== lastPoll) return; // a later one is on its way
    for (const [id, reading] of Object.entries(readings)) gauges.get(id)?.show(reading);
    kept.show(Object.values(readings));
    byId("offline").hidden = true;
  } catch {
    byId("offline").hidden = false;
  }
  if (turn === lastPoll && !document.hidden) pollTimer = setTimeout(poll, POLL_MS);
}

function pollSoon() {
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, 40);
}

async function ask({ calls, title, method, path }) {
  const sentAt = performance.now();
  const card = calls.split("-")[0];
  try {
    // Without no-store a browser sends equal GETs one after the other.
    const response = await fetch(path, { method, cache: "no-store" });
    const text = await response.text();
    const kind = response.ok ? "allowed" : response.status === 429 ? "refused" : "failed";
    const answer = { kind, card, title, status: response.status, method, path, took: secondsSince(sentAt), headers: told(response), worker: response.headers.get("x-worker"), body: text };
    if (kind === "refused") {
      answer.refusal = refusalOf(calls, answer);
      countdown.start(answer.refusal, JSON.parse(text).retry_after);
    }
    answers.add(answer);
    return answer;
  } catch (error) {
    const answer = { kind: "failed", card, title, status: "–", method, path, took: secondsSince(sentAt), headers: [], body: String(error) };
    answers.add(answer);
    return answer;
  } finally {
    pollSoon();
  }
}

async function askInTurn(turn, calls) {
  if (kept.isShared) await pause(turn * STAGGER_MS);
  return ask(calls);
}

function told(response) {
  return [...response.headers].filter(([name]) => /ratelimit|retry-after|via|content-type|x-worker/.test(name));
}

// Which limit has refused: the route's own, or one of the whole app's.
function refusalOf(calls, { headers, title }) {
  const found = new Map(headers);
  const [id, whose] = found.has("x-ratelimit-global")
    ? ["everybody", "The limit for everybody"]
    : found.get("x-ratelimit-bucket") === gauges.get("app").bucket?.bucket
      ? ["app", "Your limit for the whole app"]
      : [calls, title];
  return { whose, limit: gauges.get(id).bucket?.words ?? "one too many" };
}

function announce(all) {
  const count = (kind) => all.filter((answer) => answer.kind === kind).length;
  const wait = countdown.isCounting ? ` Next allowed call in ${countdown.value.textContent} seconds.` : "";
  const by = kept.isShared && all.length > 1 ? `, by ${workersOf(all)}` : "";
  write(byId("status"), `${all[0].title}: ${count("allowed")} allowed, ${count("refused")} refused${by}.${wait}`);
}

async function fire(button) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  const { dataset } = button.closest("[data-calls]");
  const turns = Array.from({ length: Number(button.dataset.times) }, (_, turn) => turn);
  const all = await Promise.all(turns.map((turn) => askInTurn(turn, dataset)));
  button.ariaBusy = "false";
  answers.sum(all);
  announce(all);
}

for (const button of document.querySelectorAll("[data-times]")) button.addEventListener("click", () => fire(button));

// The socket

class Echo {
  constructor(root) {
    this.root = root;
    this.socket = null;
    for (const button of root.querySelectorAll("[data-frames]")) {
      button.addEventListener("click", () => this.send(Number(button.dataset.frames)));
    }
  }

  send(count) {
    if (this.socket === null) this.#open();
    const { socket } = this;
    const sendAll = () => {
      for (let number = 1; number <= count; number += 1) socket.send(`frame ${number}`);
    };
    if (socket.readyState === WebSocket.OPEN) sendAll();
    else socket.addEventListener("open", sendAll, { once: true });
  }

  #open() {
    this.openedAt = performance.now();
    this.returned = 0;
    this.socket = new WebSocket(new URL(this.root.dataset.path, location.href.replace(/^http/, "ws")));
    this.socket.addEventListener("open", () => this.#say("open", "Open"));
    this.socket.addEventListener("message", () => {
      this.returned += 1;
      this.#say("open", `Open: ${this.returned} frames came back`);
    });
    this.socket.addEventListener("close", (event) => this.#closed(event));
  }

  #closed({ code, reason }) {
    this.socket = null;
    const why = reason || "no reason given";
    const wasOpen = this.root.dataset.state === "open";
    this.#say("refused", wasOpen ? `Closed with ${code} after ${this.returned} frames: ${why}` : "The app did not open it");
    answers.add({
      kind: code === 4008 ? "refused" : "failed", card: "echo", status: code, method: "WS", path: this.root.dataset.path,
      took: secondsSince(this.openedAt), headers: [], body: why,
      refusal: code === 4008 ? { whose: "Echo", limit: `${this.root.dataset.limit} on one socket` } : undefined,
    });
    pollSoon();
  }

  #say(state, text) {
    this.root.dataset.state = state;
    write(part(this.root, "state"), text);
  }
}

new Echo(byId("echo"));

// Keeping it alive

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function draw() {
  for (const gauge of gauges.values()) gauge.draw();
  countdown.draw();
  if (calm.matches) setTimeout(draw, 250);
  else requestAnimationFrame(draw);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
poll();
draw();
