// The word of a link to log in is behind its #, so that it is in no log of a server on the way. It is moved into the form.
"use strict";
(() => {
  function take() {
    const word = location.hash.slice(1);
    if (!/^[\w-]{1,64}$/.test(word)) return;
    document.getElementById("token").value = word;
    history.replaceState(null, "", location.pathname);
  }
  addEventListener("hashchange", take);
  take();
})();
