// Shows how far the server is, once a second, without loading the page anew: who is about to press Stop is not disturbed.
// What is to be seen when it has ended is another page.
"use strict";

(() => {
  const PAUSE_MS = 1000;
  const WAIT_MS = 10000;
  const panel = document.getElementById("progress");
  const bar = panel.querySelector("progress");

  async function look() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(WAIT_MS) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = page.getElementById("progress");
      if (!answer.ok) {
        throw new Error(answer.statusText);
      }
      if (now === null || now.dataset.state !== panel.dataset.state) {
        location.reload();
        return;
      }
      for (const id of ["how-far", "beside"]) {
        document.getElementById(id).textContent = page.getElementById(id).textContent;
      }
      bar.max = now.querySelector("progress").max;
      bar.value = now.querySelector("progress").value;
    } catch {
      document.getElementById("beside").textContent = "The server does not answer just now. It is asked again.";
    }
    setTimeout(look, PAUSE_MS);
  }

  setTimeout(look, PAUSE_MS);
})();
