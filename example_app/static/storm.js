// A storm: it is started, and drawn from the lines of its answer, ten a second.

import { byId, chosen, linesOf, part, post, set, shown, write } from "./pieces.js";

const SVG = "http://www.w3.org/2000/svg";
const CALM_S = 0.7; // before a storm
const HEIGHT = 44;

const figures = byId("figures");
const rows = [...byId("classes").children].map((root) => ({
  name: root.querySelector("b").textContent,
  sum: part(root, "sum"),
  svg: root.querySelector("svg"),
}));
let storm = null;
let isRaging = false;

// Of any worker. A storm has something to say of the one that it strikes.
export function showUsualLoad(load) {
  if (!isRaging) showLoad(load);
}

function showLoad(load) {
  const percent = String(Math.round(load * 100));
  const bar = byId("load");
  bar.ariaValueNow = percent;
  bar.dataset.level = load > 0.8 ? "high" : "some";
  bar.firstElementChild.style.width = `${percent}%`;
  write(part(figures, "load"), `${percent} %`);
}

function showFigures({ classes, health }) {
  const sum = (count) => classes.reduce((all, one) => all + one[count], 0);
  write(part(figures, "served"), sum("served").toLocaleString("en"));
  write(part(figures, "shed"), sum("shed").toLocaleString("en"));
  write(part(figures, "checks"), String(health.answered));
  write(part(figures, "asked"), String(health.asked));
  write(part(figures, "slowest"), health.answered ? `, the slowest in ${Math.ceil(health.slowest_ms)} ms` : "");
  figures.querySelector(".sheds").toggleAttribute("data-some", sum("shed") > 0);
  figures.querySelector(".checks").toggleAttribute("data-missed", health.answered < health.asked);
}

function described({ served, shed, ms }) {
  if (served + shed === 0) return "none came";
  const took = ms === null ? "" : `, in ${ms} ms as a rule`;
  return `${served.toLocaleString("en")} of ${(served + shed).toLocaleString("en")} served${took}`;
}

class Storm {
  constructor(seconds) {
    this.seconds = seconds;
    this.at = 0;
    this.before = rows.map(() => ({ served: 0, shed: 0 }));
    this.columns = rows.map(() => []);
  }

  take({ at, load, classes, health }) {
    showLoad(load);
    showFigures({ classes, health });
    const [from, span] = [this.at, Math.max(0.02, at - this.at)];
    classes.forEach((now, place) => {
      const { served, shed } = this.before[place];
      this.columns[place].push({ from, span, served: (now.served - served) / span, shed: (now.shed - shed) / span });
      write(rows[place].sum, described(now));
      rows[place].svg.setAttribute("aria-label", `${rows[place].name}: ${described(now)}`);
    });
    this.at = at;
    this.before = classes;
    this.draw();
  }

  draw() {
    this.columns.forEach((columns, place) => this.#drawRow(rows[place].svg, columns));
  }

  // The requests of each second: a column is as wide as the time between two lines.
  #drawRow(svg, columns) {
    const most = Math.max(1, ...columns.map(({ served, shed }) => served + shed));
    const scale = svg.clientWidth / Math.max(this.seconds, this.at);
    const bars = columns.flatMap(({ from, span, served, shed }) => {
      const [x, width, high, low] = [from * scale, span * scale - 1, (served / most) * HEIGHT, (shed / most) * HEIGHT];
      return [["served", x, width, HEIGHT - high, high], ["shed", x, width, HEIGHT - high - low, low]].filter((bar) => bar[4] > 0);
    });
    while (svg.children.length > bars.length) svg.lastElementChild.remove();
    while (svg.children.length < bars.length) svg.append(document.createElementNS(SVG, "rect"));
    bars.forEach(([kind, x, width, y, height], each) => {
      svg.children[each].dataset.kind = kind;
      set(svg.children[each], { x: x.toFixed(1), y: y.toFixed(1), width: Math.max(1, width).toFixed(1), height: height.toFixed(1) });
    });
  }
}

function concluded({ at, classes }) {
  const [served, shed] = ["served", "shed"].map((count) => classes.reduce((all, one) => all + one[count], 0));
  const lost = classes[0].shed;
  const important = lost === 0 ? "no payment was shed" : lost === 1 ? "one payment was shed" : `${lost} payments were shed`;
  return `${(served + shed).toLocaleString("en")} requests in ${at.toFixed(1)} s: ${served.toLocaleString("en")} served, ${shed.toLocaleString("en")} shed; ${important}.`;
}

export async function raise(event) {
  const { flood, seconds } = chosen(event.target);
  const response = await post("/protection/storms", { flood: Number(flood), seconds: Number(seconds) });
  if (response.status === 429) {
    const { retry_after: wait } = await response.json();
    write(byId("storm-said"), `One storm at a time, and six a minute. Try again in ${shown(wait)}.`);
    return;
  }
  if (!response.ok) throw new Error(`the app has answered ${response.status}`);
  write(byId("storm-said"), "");
  storm = new Storm(CALM_S + Number(seconds));
  isRaging = true;
  try {
    for await (const line of linesOf(response)) {
      storm.take(line);
      if (line.kind === "end") write(byId("storm-said"), concluded(line));
    }
  } finally {
    isRaging = false;
  }
}

addEventListener("resize", () => storm?.draw());
