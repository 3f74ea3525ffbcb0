// The pieces of log-ins and of the door: a list of the last answers, and the ladder of blocks.

import { byId, fromTemplate, part, write } from "./pieces.js";

const MOST = 30;

export function listAnswer(id, status, who, what) {
  const item = fromTemplate("try");
  item.dataset.status = status;
  write(part(item, "status"), String(status));
  write(part(item, "who"), who);
  write(part(item, "what"), what);
  const list = byId(id);
  list.prepend(item);
  while (list.children.length > MOST) list.lastElementChild.remove();
  list.hidden = false;
  byId(`${id}-empty`).hidden = true;
}

// The block that goes on, or the last one, is marked. Its rest alone does not show which one it is.
export class Ladder {
  constructor(root) {
    this.blocks = root.dataset.blocks.split(" ").map(Number);
    this.rungs = [...root.querySelectorAll(".rung")];
    this.clear();
  }

  show(seconds) {
    this.longest = Math.max(this.longest, this.blocks.find((block) => seconds <= block + 0.5) ?? 0);
    this.#mark();
  }

  clear() {
    this.longest = 0;
    this.#mark();
  }

  #mark() {
    this.rungs.forEach((rung, place) => {
      if (this.blocks[place] === this.longest) rung.ariaCurrent = "step";
      else rung.removeAttribute("aria-current");
    });
  }
}
