// What somebody typed is not lost. Leaving a form that was changed asks. Before one is sent, the server is asked whether
// its sender is still signed in: of others it reads no more than 64 KB. Who is not goes to sign in, and finds the text in
// the form again; until then it is kept in this tab of the browser alone, without passwords. And "/" leads to the search.
"use strict";

(() => {
  const { user, session, login } = document.currentScript.dataset;
  const PREFIX = "iotsupport.editing.unsaved:";
  const KEPT_MS = 24 * 3600 * 1000;
  const WAIT_MS = 10000;

  // The forms of this page, each with what it held when it came.
  const loaded = new Map();
  let isLeaving = false;
  let isAsking = false;
  let sent = null;

  window.addEventListener("load", () => {
    // After the editor and the lists of Django's admin, which change the form when the page is loaded.
    for (const form of document.querySelectorAll("#content-main form[id$='_form'][method='post']")) {
      loaded.set(form, JSON.stringify(fieldsOf(form, true)));
      form.addEventListener("submit", (event) => send(event, form));
    }
    const isSigningIn = document.getElementById("login-form") !== null;
    for (const draft of drafts()) {
      if (draft.isSent && isSigningIn) {
        keep({ ...draft, isSent: false }); // it was not taken
      } else if (draft.isSent || Date.now() - draft.at > KEPT_MS) {
        forget(draft);
      } else if (user && (draft.user === user || !draft.user)) {
        bringBack(draft);
      }
    }
    // Where the server keeps it in the page, that is what the page says.
    if (isSigningIn && drafts().length && !document.querySelector(".unsaved")) {
      const text = "What you typed is not lost. It is kept in this tab of the browser, and comes back when you sign in.";
      show(null, [text]).setAttribute("role", "status");
    }
  });

  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      isLeaving = false;
      sent = null;
    }
  });

  window.addEventListener("beforeunload", (event) => {
    if (!isLeaving && [...loaded.keys()].some(isChanged)) {
      event.preventDefault();
      event.returnValue = ""; // for older browsers
    }
  });

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    const search = document.getElementById("searchbar");
    if (event.key === "/" && search && !isTyping && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  function isChanged(form) {
    return holdsRefusedText(form) || isTypedIn(form);
  }

  function isTypedIn(form) {
    const hasFile = [...form.elements].some((element) => element.type === "file" && element.files.length);
    return hasFile || JSON.stringify(fieldsOf(form)) !== loaded.get(form);
  }

  // Shown again with what was wrong: nothing of it is saved.
  function holdsRefusedText(form) {
    const isTyped = (element) => element.matches("textarea, input[type='text']") && element.name && element.value;
    return "unsaved" in form.dataset || (form.querySelector(".errornote, [data-unsaved]") && [...form.elements].some(isTyped));
  }

  // Name to values, also where there is none: a box that is not ticked. As it came: as the page had it, since browsers
  // put back what was typed before when somebody comes back to a page.
  function fieldsOf(form, asItCame = false) {
    const fields = {};
    for (const element of form.elements) {
      if (isKept(element)) {
        fields[element.name] = [...(fields[element.name] ?? []), ...valuesOf(element, asItCame)];
      }
    }
    return fields;
  }

  function isKept({ name, type }) {
    const isOwn = name === "csrfmiddlewaretoken" || name.endsWith("_old"); // the list of what is not chosen
    return name && !isOwn && !["password", "file", "submit", "button", "image", "reset"].includes(type);
  }

  function valuesOf(element, asItCame) {
    if (element.options) {
      const isChosen = (option) => isListOfChosen(element) || option.selected;
      return [...element.options].filter(isChosen).map((option) => option.value).sort();
    }
    if (["checkbox", "radio"].includes(element.type)) {
      return (asItCame ? element.defaultChecked : element.checked) ? [element.value] : [];
    }
    return [asItCame ? element.defaultValue : element.value];
  }

  function isListOfChosen(element) {
    return element.multiple && element.id.endsWith("_to");
  }

  async function send(event, form) {
    if (event.defaultPrevented || isLeaving || sent === form) {
      return;
    }
    event.preventDefault();
    if (isAsking) {
      return; // a double click
    }
    isAsking = true;
    const isSignedIn = await askWhetherSignedIn();
    isAsking = false;
    if (isSignedIn === null) {
      tell(form, "The server does not answer just now. Nothing was sent. Wait a moment, then save again.");
    } else if (isSignedIn) {
      sent = form;
      // What was typed into another form of the page would go: the browser asks.
      isLeaving = ![...loaded.keys()].some((other) => other !== form && isTypedIn(other));
      keep({ ...draftOf(form), isSent: true });
      form.requestSubmit(event.submitter);
    } else {
      signIn(form);
    }
  }

  // Null where the server does not say.
  async function askWhetherSignedIn() {
    try {
      const answer = await fetch(session, { cache: "no-store", signal: AbortSignal.timeout(WAIT_MS) });
      return answer.ok ? (await answer.json()).is_signed_in : null;
    } catch {
      return null;
    }
  }

  function signIn(form) {
    const draft = draftOf(form);
    const address = `${login}?next=${encodeURIComponent(draft.path)}`;
    if (keep(draft)) {
      isLeaving = true;
      location.assign(address);
      return;
    }
    // More than a browser keeps: it stays where it is.
    const link = make("a", "Sign in in another tab");
    link.href = address;
    link.target = "_blank";
    tell(form, "You are not signed in any more, so nothing was saved. ", link, ", then save again.");
  }

  function draftOf(form) {
    const { pathname, search } = new URL(form.getAttribute("action") || location.href, location.href);
    const has = (type) => [...form.elements].some((element) => element.type === type && element.value);
    return {
      path: pathname + search,
      user,
      at: Date.now(),
      fields: fieldsOf(form),
      hadFile: has("file"),
      hadPassword: has("password"),
    };
  }

  // False where the browser has no room, or keeps nothing.
  function keep(draft) {
    try {
      sessionStorage.setItem(PREFIX + draft.path, JSON.stringify(draft));
      return true;
    } catch {
      return false;
    }
  }

  function forget(draft) {
    sessionStorage.removeItem(PREFIX + draft.path);
  }

  function drafts() {
    try {
      const keys = Object.keys(sessionStorage).filter((key) => key.startsWith(PREFIX));
      return keys.map((key) => JSON.parse(sessionStorage.getItem(key)));
    } catch {
      return [];
    }
  }

  function bringBack(draft) {
    const form = [...loaded.keys()].find((each) => draftOf(each).path === draft.path);
    const lines = [];
    if (form) {
      fill(form, draft.fields);
      lines.push("You had to sign in again, and nothing was saved yet. Your text is back in the form: save it.");
    } else {
      const link = make("a", draft.path);
      link.href = draft.path;
      lines.push("You had to sign in again, and nothing was saved of what you typed here: ", link);
      lines.push(...textsOf(draft));
    }
    if (draft.hadFile) {
      lines.push(" The file has to be chosen again.");
    }
    if (draft.hadPassword) {
      lines.push(" Passwords have to be typed again.");
    }
    const button = make("button", "Forget it");
    button.type = "button";
    button.addEventListener("click", () => {
      forget(draft);
      isLeaving = true;
      location.reload();
    });
    show(form, [...lines, make("br"), button]);
  }

  function textsOf(draft) {
    const texts = Object.values(draft.fields).flat().filter((value) => value.trim());
    return texts.map((value) => {
      const area = make("textarea");
      area.readOnly = true;
      area.rows = Math.min(12, value.split("\n").length);
      area.value = value;
      return area;
    });
  }

  function fill(form, fields) {
    for (const element of form.elements) {
      const values = isKept(element) ? fields[element.name] : undefined;
      if (values === undefined) {
        continue;
      }
      if (isListOfChosen(element)) {
        choose(element, values);
      } else if (element.options) {
        for (const option of element.options) {
          option.selected = values.includes(option.value);
        }
      } else if (["checkbox", "radio"].includes(element.type)) {
        element.checked = values.includes(element.value);
      } else {
        element.value = values[0] ?? "";
        const widget = element.parentElement.querySelector(".django-ace-widget");
        widget?.editor?.setValue(element.value, -1);
      }
    }
  }

  // The two lists of Django's admin between which options are moved.
  function choose(chosen, values) {
    const available = document.getElementById(chosen.id.replace(/_to$/, "_from"));
    for (const [from, to, isToMove] of [
      [available, chosen, (value) => values.includes(value)],
      [chosen, available, (value) => !values.includes(value)],
    ]) {
      for (const option of from.options) {
        option.selected = isToMove(option.value);
      }
      window.SelectBox.move(from.id, to.id);
    }
  }

  // Why a form was not sent; the newest such notice alone.
  function tell(form, ...parts) {
    document.querySelector(".unsaved-notice.trouble")?.remove();
    show(form, parts).classList.add("trouble");
  }

  function show(form, parts) {
    const notice = make("div");
    notice.className = "unsaved-notice";
    notice.setAttribute("role", "alert");
    notice.append(...parts);
    const place = form ?? document.querySelector("#content-main, #content");
    place.before(notice);
    notice.scrollIntoView({ block: "center" });
    return notice;
  }

  function make(name, text = "") {
    const element = document.createElement(name);
    element.textContent = text;
    return element;
  }
})();
