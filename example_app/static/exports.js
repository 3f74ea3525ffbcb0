// Slow exports: each is a stream that holds a slot, until it ends or is closed.

import { byId, fromTemplate, linesOf, part, write } from "./pieces.js";

const MOST_RUNS = 12;
let started = 0;

export function showSlots(used, usedByAddress) {
  const root = byId("slots");
  const lamps = [...root.querySelectorAll(".lamps i")];
  lamps.forEach((lamp, place) => lamp.toggleAttribute("data-used", place < used));
  root.ariaValueNow = String(used);
  const text = part(root, "text");
  write(text, `${used} of ${lamps.length} slots in use, ${usedByAddress} of ${text.dataset.ofAddress} of your address`);
}

class Run {
  constructor() {
    this.closing = new AbortController();
    this.root = fromTemplate("run");
    this.bar = this.root.querySelector(".run-bar");
    this.button = this.root.querySelector("button");
    this.name = `Export ${(started += 1)}`;
    write(part(this.root, "name"), String(started));
    this.bar.ariaLabel = this.name;
    this.button.ariaLabel = `Close ${this.name.toLowerCase()}`;
    this.button.addEventListener("click", () => this.closing.abort());
    this.show(0);
  }

  show(done) {
    const percent = String(Math.round(done * 100));
    this.bar.firstElementChild.style.width = `${percent}%`;
    this.bar.ariaValueNow = percent;
    this.#say("running", `running, ${percent} %`);
  }

  async go() {
    try {
      const response = await fetch("/api/exports", { cache: "no-store", signal: this.closing.signal });
      if (!response.ok) {
        const wait = response.headers.get("retry-after");
        const isOfAddress = response.headers.get("x-ratelimit-limit") === part(byId("slots"), "text").dataset.ofAddress;
        this.#end("refused", `${response.status}${isOfAddress ? " for your address" : ""}, retry after ${wait ?? "–"} s`);
        return "refused";
      }
      for await (const { done } of linesOf(response)) this.show(done);
      this.#end("done", "done, its slot is free");
      return "done";
    } catch (error) {
      const closed = error.name === "AbortError";
      this.#end(closed ? "closed" : "refused", closed ? "closed, its slot is free" : "the connection is lost");
      return "closed";
    }
  }

  #say(kind, text) {
    this.root.dataset.kind = kind;
    write(part(this.root, "state"), text);
  }

  #end(kind, text) {
    this.#say(kind, text);
    this.button.hidden = true;
  }
}

export async function startExports(count, look) {
  const runs = Array.from({ length: count }, () => new Run());
  const list = byId("runs");
  for (const run of runs) list.append(run.root);
  while (list.children.length > MOST_RUNS) list.firstElementChild.remove();
  list.hidden = false;
  list.scrollTop = list.scrollHeight;
  byId("runs-empty").hidden = true;
  const ends = runs.map(async (run) => {
    const going = run.go();
    setTimeout(look, 150);
    const end = await going;
    setTimeout(look, 50);
    return end;
  });
  const results = await Promise.all(ends);
  const sum = (kind) => results.filter((result) => result === kind).length;
  const parts = ["done", "refused", "closed"].filter(sum).map((kind) => `${sum(kind)} ${kind}`);
  write(byId("flight-said"), `${count === 1 ? "One export" : `${count} exports`}: ${parts.join(", ")}.`);
}
