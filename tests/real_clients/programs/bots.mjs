// The program bots.py for @discordjs/rest. Its argument is the folder of the library's modules.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";

const { REST } = createRequire(join(process.argv[2], "unused.js"))("@discordjs/rest");
const lines = createInterface({ input: process.stdin });
const job = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
lines.close();

async function call(rest, user) {
  const { id } = await rest.get(`/users/${user}`);
  return id === user ? "ok" : "another user";
}

async function bot(token) {
  const rest = new REST({ version: "10", api: `${job.address}/api` }).setToken(token);
  const outcomes = Object.fromEntries(job.users.map((user) => [user, "it hangs"]));
  const calls = job.users.map(async (user) => {
    outcomes[user] = await call(rest, user).catch((error) => `${error.name}: ${error.message}`);
  });
  const late = new Promise((resolve) => setTimeout(resolve, job.seconds * 1000));
  await Promise.race([Promise.all(calls), late]);
  return [token, { ...outcomes }];
}

console.log(JSON.stringify(Object.fromEntries(await Promise.all(job.tokens.map(bot)))));
process.exit(0);
