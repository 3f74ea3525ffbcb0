// @discordjs/rest: the same job as job.py's, in its own language.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline/promises";
import { setTimeout as sleep } from "node:timers/promises";

const lines = createInterface({ input: process.stdin });
const given = lines[Symbol.asyncIterator]();

// Identifiers have more digits than a number of JavaScript's holds: they come as text.
const job = JSON.parse((await given.next()).value);
const load = createRequire(`${job.modules}/`);
const { REST } = load("@discordjs/rest");
const { version } = JSON.parse(readFileSync(`${job.modules}/node_modules/@discordjs/rest/package.json`));

const options = { version: "10", api: `${job.address}/api`, globalRequestsPerSecond: job.global_limit };
const rest = new REST(options).setToken("a.token.of-nobody");
const emoji = encodeURIComponent("👍");
const reaction = (channel, message) => `/channels/${channel}/messages/${message}/reactions/${emoji}/@me`;
const verbs = {
  send: (channel, name, signal) => rest.post(`/channels/${channel}/messages`, { body: { content: name }, signal }),
  react: (channel, message, signal) => rest.put(reaction(channel, message), { signal }),
};

async function one(call) {
  await sleep(call.start * 1000);
  const startedAt = performance.now();
  const patience = new AbortController();
  if (call.cancel !== null) setTimeout(() => patience.abort(), call.cancel * 1000);
  const outcome = await verbs[call.verb](call.channel, call.name, patience.signal).then(
    () => "ok",
    (error) => (patience.signal.aborted ? "cancelled" : `${error.name}: ${error.message}`),
  );
  return [outcome, (performance.now() - startedAt) / 1000];
}

for (const call of job.before) await one(call);
console.log("ready");
await given.next();
lines.close();
const outcomes = await Promise.all(job.calls.map(one));
console.log(JSON.stringify({ version, outcomes }));
process.exit(0);
