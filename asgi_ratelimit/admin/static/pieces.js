// The small things that the page is made of.

export const byId = (id) => document.getElementById(id);
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const count = (number) => whole.format(number);
export const compact = (number) => short.format(number);

export function percent(share) {
  if (share > 0 && share < 0.001) return "under 0.1 %";
  return `${(share * 100).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
}

export function clock(seconds, exact = false) {
  const parts = { hour: "2-digit", minute: "2-digit", ...(exact ? { second: "2-digit" } : {}) };
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", parts);
}

export function lasting(seconds) {
  if (seconds < 60) return `${(Math.ceil(seconds * 10 - 1e-6) / 10).toFixed(1)} s`; // waits are rounded up
  const rest = Math.ceil(seconds);
  const [large, small, units] = rest < 3600 ? [60, 1, ["min", "s"]] : rest < 86400 ? [3600, 60, ["h", "min"]] : [86400, 3600, ["d", "h"]];
  const [first, second] = [Math.floor(rest / large), Math.floor((rest % large) / small)];
  return second ? `${first} ${units[0]} ${second} ${units[1]}` : `${first} ${units[0]}`;
}

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A path, which may be broken after each of its segments.
export function writePath(node, path) {
  if (node.textContent === path) return;
  node.replaceChildren(...path.split(/(?<=[/}])(?=.)/).flatMap((segment) => [segment, document.createElement("wbr")]));
}

export function made(tag, text = "", className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

// A bar: so much of the whole.
export function newBar() {
  const bar = made("span", "", "part");
  bar.setAttribute("role", "meter");
  bar.append(made("i"));
  return bar;
}

export function writeBar(bar, share, label) {
  bar.firstElementChild.style.width = `${share * 100}%`;
  bar.setAttribute("aria-valuenow", String(share * 100));
  bar.setAttribute("aria-valuemax", "100");
  bar.setAttribute("aria-label", label);
  bar.title = label;
}

export function put(tag, children, className = "") {
  const node = made(tag, "", className);
  node.append(...children.map(([name, kind]) => made(name, "", kind ?? "")));
  return node;
}

// One node for each item: those that are there already stay, so that focus and selection stay, too.
export function sync(root, items, keyOf, make, update) {
  const focused = document.activeElement;
  const nodes = new Map([...root.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, place) => {
    const key = String(keyOf(item));
    let node = nodes.get(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    nodes.delete(key);
    if (root.children[place] !== node) root.insertBefore(node, root.children[place] ?? null);
    update(node, item);
  });
  for (const node of nodes.values()) node.remove();
  if (focused !== document.activeElement && root.contains(focused)) focused.focus();
}
