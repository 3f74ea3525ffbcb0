// Allowed and refused by minute or hour, as stacked bars (uPlot).

import { clock, compact, count, made, write } from "./pieces.js";

const STEPS = { minutes: 60, hours: 3600 };
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Chart {
  #root;
  #reading;
  #plot = null;
  #periods = { start: [], allowed: [], refused: [] };
  #span = "minutes";

  constructor(root, reading) {
    this.#root = root;
    this.#reading = reading;
    dark.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.#fit()).observe(root);
  }

  show(periods, span) {
    const isNew = span !== this.#span || !this.#plot;
    this.#periods = periods;
    this.#span = span;
    if (isNew) this.#draw();
    else this.#plot.setData(this.#data());
    this.#read(this.#plot.cursor.idx);
  }

  // The refused ones stand on top: the bar of all is drawn first, that of the allowed ones over it.
  #data() {
    const { start, allowed, refused } = this.#periods;
    return [start, allowed.map((number, i) => number + refused[i]), allowed];
  }

  #fit() {
    const [width, height] = [this.#root.clientWidth, this.#root.clientHeight];
    if (this.#plot && width && (width !== this.#plot.width || height !== this.#plot.height)) this.#plot.setSize({ width, height });
  }

  #read(place) {
    const { start, allowed, refused } = this.#periods;
    const parts = [["allowed", "Allowed"], ["refused", "Refused"]];
    const isOne = place !== null && place !== undefined && place < start.length;
    const sums = { allowed: isOne ? allowed[place] : total(allowed), refused: isOne ? refused[place] : total(refused) };
    const when = isOne ? clock(start[place]) : this.#span === "minutes" ? "Last hour" : "Last day";
    if (!this.#reading.children.length) this.#reading.append(made("span"), ...parts.map(([name]) => made("span", "", `of-${name}`)));
    write(this.#reading.children[0], when);
    parts.forEach(([name, title], i) => write(this.#reading.children[i + 1], `${title} ${count(sums[name])}`));
  }

  #draw() {
    this.#plot?.destroy();
    this.#plot = new window.uPlot(this.#options(), this.#data(), this.#root);
  }

  #options() {
    const colour = (name) => colourOf(this.#root, name);
    const [soft, line] = [colour("--soft"), colour("--line")];
    const half = STEPS[this.#span] / 2;
    const font = "12px Inter, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
    const bars = window.uPlot.paths.bars({ size: [0.72, 26], radius: [0.18, 0] });
    const series = (name) => ({ fill: colour(name), stroke: colour(name), width: 0, paths: bars, points: { show: false } });
    return {
      width: this.#root.clientWidth || 600,
      height: this.#root.clientHeight || 300,
      padding: [12, 20, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { range: (_, low, high) => [(low ?? 0) - half, (high ?? 1) + half] },
        y: { range: (_, low, high) => [0, Math.max(5, (high ?? 0) * 1.08)] },
      },
      axes: [
        { stroke: soft, font, size: 34, grid: { show: false }, ticks: { show: false }, space: 64, values: (_, values) => values.map((one) => clock(one)) },
        { stroke: soft, font, size: 46, grid: { stroke: line, width: 1 }, ticks: { show: false }, space: 44, incrs: [1, 2, 5, ...powers()], values: (_, values) => values.map(compact) },
      ],
      series: [{}, series("--stop"), series("--calm")],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }
}

const total = (numbers) => numbers.reduce((all, number) => all + number, 0);
const powers = () => Array.from({ length: 30 }, (_, i) => [1, 2, 5][i % 3] * 10 ** (1 + Math.floor(i / 3)));

// A canvas does not know light-dark(): an element's colour is read when it is resolved.
function colourOf(root, name) {
  const probe = made("i");
  probe.style.color = `var(${name})`;
  root.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
