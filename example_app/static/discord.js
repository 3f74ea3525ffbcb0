// The bot's page: two forms, and what keeps moving.

import { drawBurst, send } from "./burst.js";
import { drawAllowance, drawCountdowns, interact } from "./interactions.js";
import { byId, keepDrawing, write } from "./pieces.js";

function onSubmit(form, said, act) {
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    try {
      await act(form);
    } catch (error) {
      write(said, `That did not work: ${error.message}.`);
    } finally {
      button.ariaBusy = "false";
    }
  });
  // Until now a click would have left the page with the form.
  button.disabled = "unavailable" in button.dataset;
}

onSubmit(byId("plan"), byId("burst-said"), send);
onSubmit(byId("interaction"), byId("interact-said"), interact);

keepDrawing(() => {
  drawBurst();
  drawAllowance();
  drawCountdowns();
});
