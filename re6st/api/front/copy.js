// A button beside each text that people copy: on the page for newcomers, and on those of the operator.
"use strict";
(() => {
  async function copy(text, from) {
    try {
      await navigator.clipboard.writeText(text);  // only where the page came by HTTPS, or from this machine
      return true;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(from);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  }

  for (const box of document.querySelectorAll(".copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const from = box.querySelector("pre, code");
      button.textContent = (await copy(from.textContent, from)) ? "Copied" : "Press Ctrl-C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    box.append(button);
  }
})();
