// The small things that the pages of the bot and of protection are made of.

export const byId = (id) => document.getElementById(id);
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
export const secondsSince = (moment) => (performance.now() - moment) / 1000;
export const shown = (value) => `${(Math.ceil(Math.max(0, value) * 10 - 1e-6) / 10).toFixed(1)} s`; // waits are rounded up
export const write = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
export const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);
export const chosen = (form) => Object.fromEntries(new FormData(form));

export function made(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
}

// The objects of an answer that has one on each line, as they come.
export async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function keepDrawing(draw) {
  draw();
  if (calm.matches) setTimeout(keepDrawing, 250, draw);
  else requestAnimationFrame(() => keepDrawing(draw));
}
