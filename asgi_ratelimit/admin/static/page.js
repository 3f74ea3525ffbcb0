// The operator's page: it draws each state that the server sends, and sends the verbs about one key.

import { Chart } from "./chart.js";
import { byId, clock, compact, count, lasting, made, newBar, part, percent, put, sum, sync, write, writeBar, writePath } from "./pieces.js";

let state = null;
let found = ""; // the digest of the key that was looked up last
const chart = new Chart(byId("chart"), byId("reading"));

// The connection

const REFUSED = "You are not let in any more. Log in again, then reload this page.";
let wait = 1; // s until the next attempt

function listen() {
  const source = new EventSource("events");
  source.addEventListener("state", (event) => {
    wait = 1;
    show(JSON.parse(event.data));
    link("live", `Live, changed ${clock(state.time, true)}`);
  });
  source.addEventListener("over", () => {
    source.close();
    listen();
  });
  source.addEventListener("error", () => {
    link("lost", "Reconnecting");
    lost("The app does not answer. Trying again.");
    if (source.readyState === EventSource.CLOSED) retry();
  });
}

async function retry() {
  const answer = await fetch("state", { cache: "no-store", redirect: "manual" }).catch(() => null);
  const isRefused = answer && (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403);
  if (isRefused) lost(REFUSED);
  setTimeout(listen, wait * 1000);
  wait = Math.min(30, wait * 2);
}

function link(name, text) {
  byId("link").dataset.state = name;
  write(part(byId("link"), "text"), text);
  if (name === "live") byId("lost").hidden = true;
}

function lost(text) {
  write(byId("lost"), text);
  byId("lost").hidden = false;
}

// What it shows

function show(newest) {
  state = newest;
  write(byId("processes"), state.processes === 1 ? "1 process" : `${state.processes} processes`);
  byId("processes").hidden = false;
  showAway();
  showTiles();
  showLimiters();
  showChoices();
  showHint();
  showChosen();
  showLines();
  showDiscord();
}

function showAway() {
  const open = state.outages.filter((outage) => outage.seconds === null);
  const away = open.map((outage) => `${outage.node || "The store"} does not answer since ${clock(outage.start, true)}.`);
  write(byId("away"), away.join(" "));
  byId("away").hidden = !away.length;
}

function showTiles() {
  const all = state.limiters;
  const hour = totals(all, "minutes");
  const [allowed, refused] = [sum(hour.allowed), sum(hour.refused)];
  const last = hour.start.length - 1;
  tile("allowed", count(allowed), `in the last hour, ${count(hour.allowed[last])} this minute`);
  tile("refused", count(refused), allowed + refused ? `in the last hour, ${percent(refused / (allowed + refused))} of all` : "in the last hour");
  byId("tile-refused").dataset.level = refused > 0.05 * (allowed + refused) ? "high" : refused ? "some" : "none";
  const busiest = hour.start.map((start, i) => [hour.allowed[i] + hour.refused[i], start]).sort((a, b) => b[0] - a[0])[0];
  tile("busiest", busiest?.[0] ? count(busiest[0]) : "–", busiest?.[0] ? `decisions, at ${clock(busiest[1])}` : "in the last hour");
  tile("near", count(sum(all.map((one) => one.near))), "80 % used, since the start");
  tile("exempt", count(sum(all.map((one) => one.exempt))), "passed freely, since the start");
}

function tile(id, number, note) {
  write(part(byId(`tile-${id}`), "number"), number);
  write(part(byId(`tile-${id}`), "note"), note);
}

// The hour by minute or the day by hour up to now, for a page without any decision.
function emptyTimes(span) {
  const [step, many] = span === "minutes" ? [60, 60] : [3600, 24];
  const now = Math.floor(state.time / step) * step;
  return Array.from({ length: many }, (_, i) => now - (many - 1 - i) * step);
}

function totals(limiters, span) {
  const columns = limiters.map((one) => one[span]).filter((one) => one.start.length);
  const longest = columns.reduce((best, one) => (one.start.length >= best.length ? one.start : best), emptyTimes(span));
  const places = new Map(longest.map((start, place) => [start, place]));
  const added = { start: longest, allowed: longest.map(() => 0), refused: longest.map(() => 0) };
  for (const one of columns) {
    one.start.forEach((start, i) => {
      const place = places.get(start);
      if (place === undefined) return;
      added.allowed[place] += one.allowed[i];
      added.refused[place] += one.refused[i];
    });
  }
  return added;
}

let order = []; // rows keep their places while one looks at them

function showLimiters() {
  const byName = new Map(state.limiters.map((one) => [one.name, one]));
  order = order.filter((name) => byName.has(name));
  order.push(...state.limiters.map((one) => one.name).filter((name) => !order.includes(name)));
  sync(byId("limiters"), order.map((name) => byName.get(name)), (one) => one.name, newLimiter, showLimiter);
  byId("no-limiters").hidden = order.length > 0;
  write(byId("left-out"), state.left_out ? `and ${count(state.left_out)} more` : "");
}

function newLimiter(one) {
  const row = made("tr");
  const head = made("th");
  head.scope = "row";
  const name = made("button", "", "name");
  name.type = "button";
  writePath(name, one.name);
  name.addEventListener("click", () => choose(byId("shown").value === one.name ? "" : one.name));
  head.append(name, made("span", "", "limits"));
  row.append(head);
  for (let i = 0; i < 9; i += 1) row.append(made("td", "", i === 2 ? "share" : "number"));
  row.children[3].append(newBar());
  return row;
}

const MOST_LIMITS = 3;

function showLimiter(row, one) {
  const total = one.allowed + one.refused;
  const [name, limits] = row.firstElementChild.children;
  name.setAttribute("aria-pressed", String(byId("shown").value === one.name));
  const more = one.limits.length - MOST_LIMITS;
  const texts = [one.about, ...one.limits.slice(0, MOST_LIMITS), more > 0 ? `${more} more` : ""];
  write(limits, texts.filter(Boolean).join("  ·  "));
  const cells = [...row.children].slice(1);
  write(cells[0], count(one.allowed));
  write(cells[1], count(one.refused));
  cells[1].classList.toggle("bad", one.refused > 0);
  const share = total ? one.refused / total : 0;
  writeBar(cells[2].firstElementChild, share, `${percent(share)} refused`);
  [one.near, one.waited, one.cached, one.degraded].forEach((number, i) => write(cells[3 + i], number ? count(number) : "–"));
  cells[6].classList.toggle("warn", one.degraded > 0);
  // Processes have their highest numbers at different moments, which cannot be added up.
  const most = state.processes > 1 ? "" : `, at most ${count(one.most_in_flight)}`;
  write(cells[7], one.most_in_flight ? `${count(one.in_flight)}${most}` : "–");
  write(cells[8], one.busiest ? `${count(one.busiest.total)} at ${clock(one.busiest.start)}` : "–");
}

function showChoices() {
  const names = state.limiters.map((one) => one.name).sort();
  fill(byId("shown"), [["", "All limiters"], ...names.map((name) => [name, name])]);
  const keyless = new Set(state.limiters.filter((one) => one.shed && !one.limits.length).map((one) => one.name));
  fill(byId("act-limiter"), names.filter((name) => !keyless.has(name)).map((name) => [name, name]));
}

function fill(select, options) {
  const now = [...select.options].map((one) => one.value).join("\n");
  if (now === options.map(([value]) => value).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.value = options.some(([value]) => value === chosen) ? chosen : options[0]?.[0] ?? "";
}

function choose(name) {
  byId("shown").value = name;
  const hasKeys = [...byId("act-limiter").options].some((one) => one.value === name);
  if (hasKeys) byId("act-limiter").value = name;
  showHint();
  showLimiters();
  showChosen();
}

// The store and the counts have digests of accounts only. Here one writes their names.
function showHint() {
  const chosen = state?.limiters.find((one) => one.name === byId("act-limiter").value);
  const hint = chosen?.log_ins ? (chosen.name.endsWith(":address") ? "192.0.2.7" : "the name of an account") : "user:ada or 192.0.2.7";
  if (byId("act-key").placeholder !== hint) byId("act-key").placeholder = hint;
}

function showChosen() {
  const name = byId("shown").value;
  const chosen = state.limiters.filter((one) => !name || one.name === name);
  const span = document.querySelector("[name=span]:checked").value;
  const periods = totals(chosen, span);
  chart.show(periods, span);
  const unit = span === "minutes" ? "minute" : "hour";
  const whole = `${count(sum(periods.allowed))} allowed, ${count(sum(periods.refused))} refused`;
  write(byId("title-chart"), `Decisions by ${unit}`);
  byId("chart").setAttribute("aria-label", `Decisions of ${name || "all limiters"} by ${unit}: ${whole}`);
  const rows = periods.start.map((start, i) => [start, periods.allowed[i], periods.refused[i]]).filter((row) => row[1] + row[2]);
  sync(byId("periods"), rows.reverse(), (row) => row[0], () => put("tr", [["td"], ["td", "number"], ["td", "number"]]), (row, values) => {
    [clock(values[0]), count(values[1]), count(values[2])].forEach((text, i) => write(row.children[i], text));
  });
  showKeys(chosen, name);
}

const MOST_KEYS = 12;

function showKeys(chosen, name) {
  const keys = chosen.flatMap((one) => one.keys.map((key) => ({ ...key, limiter: one.name })));
  keys.sort((a, b) => b.allowed + b.refused - a.allowed - a.refused);
  write(byId("keys-of"), name ? `of ${name}` : "of all limiters");
  sync(byId("keys"), keys.slice(0, MOST_KEYS), (one) => `${one.limiter}\n${one.key}`, newKey, (row, one) => showKey(row, one, name));
  byId("no-keys").hidden = keys.length > 0;
}

function newKey(one) {
  const row = put("tr", [["th"], ["td", "number"], ["td", "number"]]);
  const head = row.firstElementChild;
  head.scope = "row";
  const isDigest = /^[0-9a-f]{16}$/.test(one.key);
  const text = made(isDigest ? "code" : "button", one.key, isDigest ? "key" : "key name");
  if (!isDigest) {
    text.type = "button";
    text.addEventListener("click", () => pick(one));
  }
  head.append(text, made("span", "", "limits"));
  return row;
}

function showKey(row, one, name) {
  const about = one.error ? `± ${count(one.error)}` : "";
  writePath(row.firstElementChild.children[1], [name ? "" : one.limiter, about].filter(Boolean).join("  ·  "));
  write(row.children[1], count(one.allowed));
  write(row.children[2], count(one.refused));
  row.children[2].classList.toggle("bad", one.refused > 0);
  row.toggleAttribute("data-found", one.key === found);
}

function pick(one) {
  byId("act-limiter").value = one.limiter;
  byId("act-key").value = one.key;
  byId("act-key").focus();
}

function showLines() {
  const shadow = state.limiters.filter((one) => one.shadow);
  sync(byId("shadow"), shadow, (one) => one.name, () => put("li", [["b"], ["span"]]), (line, one) => {
    writePath(line.children[0], one.name);
    write(line.children[1], `would have refused ${plural(one.shadow, "request")} of ${plural(one.shadow_keys, "caller")}`);
  });
  byId("no-shadow").hidden = shadow.length > 0;
  showProtection();
  sync(byId("outages"), state.outages, (one) => `${one.node}\n${one.start}`, () => put("li", [["b"], ["span"], ["small"]]), showOutage);
  byId("no-outages").hidden = state.outages.length > 0;
}

function showProtection() {
  const logIns = state.limiters.filter((one) => one.log_ins);
  logIns.sort((a, b) => (a.name < b.name ? -1 : 1));
  byId("log-ins").hidden = !logIns.length;
  sync(byId("log-in-lines"), logIns, (one) => one.name, () => put("li", [["b"], ["span"], ["small"]]), (line, one) => {
    line.dataset.level = one.failed ? "some" : "none";
    write(line.children[0], one.name);
    const counts = [plural(one.failed, "failure"), `${plural(one.escalated, "block")} begun`, `${plural(one.refused, "attempt")} refused`];
    write(line.children[1], counts.join(", "));
    write(line.children[2], one.about);
  });
  const shed = state.limiters.filter((one) => one.shed || (one.escalated && !one.log_ins));
  sync(byId("shed"), shed, (one) => one.name, () => put("li", [["b"], ["span"]]), (line, one) => {
    writePath(line.children[0], one.name);
    const most = one.busiest ? `, the most at ${clock(one.busiest.start)}` : "";
    const blocks = `${plural(one.escalated, "block")} begun, after too many refusals of a key`;
    write(line.children[1], one.shed ? `${plural(one.shed, "request")} shed${most}` : blocks);
  });
  byId("no-shed").hidden = shed.length > 0;
}

function showOutage(line, one) {
  line.dataset.level = one.seconds === null ? "open" : "over";
  const lasted = one.seconds === null ? `away since ${clock(one.start, true)}` : `away for ${lasting(one.seconds)} at ${clock(one.start, true)}`;
  write(line.children[0], one.node || "The store");
  write(line.children[1], one.checks ? `${lasted}, ${plural(one.checks, "decision")} without it` : lasted);
  write(line.children[2], one.cause);
}

const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

function showDiscord() {
  const kinds = Object.entries(state.discord);
  byId("discord").hidden = state.waiting === null && !kinds.length;
  const named = { response: "answered", refused: "429s", wait: "held back", retry: "tried again" };
  write(byId("discord-counts"), kinds.filter(([, n]) => n).map(([kind, n]) => `${compact(n)} ${named[kind] ?? kind}`).join(", "));
  const queues = state.waiting ?? [];
  sync(byId("queues"), queues, (one) => `${one.route}\n${one.bucket}\n${one.cause}`, newQueue, (row, one) => {
    writePath(row.children[0].firstElementChild, one.route);
    [count(one.calls), one.cause, lasting(one.seconds)].forEach((text, i) => write(row.children[i + 1], text));
  });
  byId("no-queues").hidden = queues.length > 0;
}

function newQueue() {
  const row = put("tr", [["th"], ["td", "number"], ["td"], ["td", "number"]]);
  row.firstElementChild.scope = "row";
  row.firstElementChild.append(made("code", "", "key"));
  return row;
}

// One key

async function act(event) {
  event.preventDefault();
  const { verb, ...wanted } = { verb: event.submitter?.value ?? "look-up", ...Object.fromEntries(new FormData(event.target)) };
  wanted.seconds = Number(wanted.seconds);
  const busy = event.submitter;
  busy?.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(verb, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wanted), redirect: "manual" });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) showResult(verb, wanted, body);
    else failed(typeof body.detail === "string" ? body.detail : answer.status === 403 || !answer.status ? REFUSED : `The app answers with ${answer.status}.`);
  } catch {
    failed("The app does not answer.");
  }
  busy?.removeAttribute("aria-busy");
}

function showResult(verb, wanted, { digest, parts }) {
  found = digest;
  const isBlocked = parts.some((one) => one.blocked);
  const done = { "look-up": isBlocked ? "It is blocked" : "What is left", reset: "Full again", block: "Blocked" }[verb];
  const title = put("p", [["b"], ["span"]], "result-title");
  write(title.children[0], done);
  write(title.children[1], `${wanted.key}${wanted.per ? ` for ${wanted.per}` : ""} in ${wanted.limiter}`);
  byId("result").replaceChildren(title, ...parts.map(newPart), made("p", `Its digest is ${digest}`, "digest"));
  byId("result").dataset.state = isBlocked ? "blocked" : "fine";
  if (state) showChosen();
}

function newPart(one) {
  const line = made("div", "", "left");
  line.append(made("b", one.rate), newBar(), made("span"));
  writeBar(line.children[1], one.blocked || !one.limit ? 0 : one.remaining / one.limit, `${one.rate}: left`);
  const whose = { global: ", all callers together", shared: ", all callers of the resource together" }[one.scope] ?? "";
  const left = `${count(one.remaining)} of ${count(one.limit)} left${whose}`;
  const until = one.blocked ? `refused for ${lasting(one.retry_after)}` : one.allowed ? (one.reset_after ? `full in ${lasting(one.reset_after)}` : "full") : `refused for ${lasting(one.retry_after)}`;
  write(line.children[2], `${one.blocked ? "" : `${left}, `}${until}${one.degraded ? " (without the server)" : ""}`);
  return line;
}

function failed(text) {
  byId("result").replaceChildren(made("p", text));
  byId("result").dataset.state = "failed";
}

byId("act").addEventListener("submit", act);
byId("act-limiter").addEventListener("change", showHint);
byId("shown").addEventListener("change", (event) => choose(event.target.value));
for (const input of document.querySelectorAll("[name=span]")) input.addEventListener("change", () => state && showChosen());
listen();
