// Shows the commands of the invitation behind the #, which no server has seen. It is shown only in the form that registries
// make: nobody else may choose the words of a command that people copy.
"use strict";
(() => {
  const WHOLE = /^#(?:sha(?:256|384|512):[0-9A-Fa-f]{64,128}|token=[A-Za-z0-9_-]{1,64}|,)+$/;
  const PLACE = /^https?:\/\/[\w.:[\]-]+[\w./~-]*$/;
  const byId = (name) => document.getElementById(name);
  const command = byId("join").textContent;

  function show() {
    const place = location.origin + location.pathname.replace(/index\.html$/, "");
    let fragment = location.hash;
    try {
      fragment = decodeURIComponent(fragment);
    } catch {
      // it is no invitation
    }
    const whole = WHOLE.test(fragment) && PLACE.test(place) && /token=/.test(fragment) && /sha\d+:/.test(fragment);
    byId("join").textContent = whole ? command.replace("INVITATION", place + fragment) : command;
    byId("which").textContent = whole ? `Your invitation is for the registry ${place}. Run these commands on the machine that is to join.` : "";
    byId("which").hidden = byId("kept").hidden = !whole;
    byId("needed").hidden = whole;
    byId("wrong").hidden = whole || fragment.length < 2;
  }

  addEventListener("hashchange", show);
  show();
})();
