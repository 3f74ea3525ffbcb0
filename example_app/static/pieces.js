// The small things that both halves of the bot's page are made of.

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
