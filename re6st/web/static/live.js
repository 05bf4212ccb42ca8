// Keeps a page up to date: when the registry says that something changed, the parts marked data-live are loaded again.
"use strict";
(() => {
  const link = document.getElementById("link");
  let shown = document.body.dataset.revision;
  let busy = false;
  let again = false;

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const form = document.querySelector(".form");  // a page made by a form is not made again
      const parts = document.querySelectorAll("[data-live]");
      if (parts.length && !(form && form.contains(document.activeElement))) {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
        if (answer.ok) {
          const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
          for (const part of parts) {
            const other = fresh.getElementById(part.id);
            if (other && !part.contains(document.activeElement) && other.innerHTML !== part.innerHTML) {
              part.replaceChildren(...other.childNodes);
            }
          }
        }
      }
    } catch {
      // the next event tries again
    }
    busy = false;
    if (again) {
      again = false;
      setTimeout(refresh, 500);
    }
  }

  const stream = new EventSource("/stream");
  stream.onopen = () => {
    link.hidden = false;
    link.textContent = "live";
    link.classList.remove("broken");
  };
  stream.onerror = () => {
    link.hidden = false;
    link.textContent = "not connected";
    link.classList.add("broken");
  };
  stream.onmessage = (event) => {
    if (event.data === shown) return;
    shown = event.data;
    refresh();
    document.dispatchEvent(new Event("mesh-changed"));
  };
  addEventListener("pagehide", () => stream.close());
  setInterval(refresh, 30000);  // times such as "4 s ago"
})();
