// The buttons that change the text and save nothing: the server is asked for the new text, and the cursor stays where it
// is. Where it does not answer so, perhaps because nobody is signed in any more, the form is sent as without this script.
"use strict";

(() => {
  const WAIT_MS = 10000;
  let isAsking = false;

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-edits]");
    const editor = button && editorOf(button.form);
    if (!editor || event.defaultPrevented) {
      return;
    }
    event.preventDefault();
    if (isAsking) {
      return;
    }
    isAsking = true;
    const text = editor.getValue();
    const answer = await ask(button.form, new FormData(button.form, button));
    isAsking = false;
    if (answer === null) {
      button.form.requestSubmit(button);
    } else if (editor.getValue() === text) {
      // Else somebody typed on: that is not to be lost.
      show(editor, button.form, answer);
    }
  });

  // Another type has other keys, and the text may not fit it.
  document.addEventListener("change", async ({ target }) => {
    if (target.name === "type" && target.form && editorOf(target.form)) {
      const data = new FormData(target.form);
      data.set("_keys", "1");
      const answer = await ask(target.form, data);
      if (answer !== null) {
        showKeys(answer.keys);
        say(target.form, answer.note, answer.refused !== null);
      }
    }
  });

  function editorOf(form) {
    return form.querySelector(".django-ace-widget")?.editor;
  }

  // Null where the answer is none.
  async function ask(form, data) {
    const address = form.getAttribute("action") || location.href;
    const headers = { Accept: "application/json" };
    const signal = AbortSignal.timeout(WAIT_MS);
    try {
      const answer = await fetch(address, { method: "POST", body: new URLSearchParams(data), headers, signal });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }

  function show(editor, form, { content, note, refused, place, keys }) {
    say(form, note, refused !== null);
    showKeys(keys);
    if (refused?.line) {
      editor.showMistake(refused);
    } else if (content !== editor.getValue()) {
      replaceText(editor, content);
    }
    if (place) {
      editor.selectBetween(place);
    }
    editor.focus();
    editor.container.closest(".django-ace-widget").scrollIntoView({ block: "nearest" });
  }

  function showKeys(html) {
    const keys = document.getElementById("keys");
    if (keys === null) {
      return; // the page has more important things beside the editor
    }
    const { body } = new DOMParser().parseFromString(html, "text/html");
    const isShown = !body.firstElementChild.hidden;
    keys.replaceWith(body.firstElementChild);
    document.querySelector(".beside-form").classList.toggle("with-panel", isShown || hasPanels());
  }

  function hasPanels() {
    return document.querySelector(".beside-form .panel:not(.keys)") !== null;
  }

  // The newest alone, above the editor.
  function say(form, note, isRefusal) {
    form.querySelector(".tool-note")?.remove();
    const line = document.createElement("p");
    line.className = isRefusal ? "tool-note errornote" : "tool-note form-note";
    line.setAttribute("role", isRefusal ? "alert" : "status");
    line.textContent = note;
    form.querySelector(".django-ace-editor").before(line);
  }

  // In one step that can be undone. The line of the cursor stays where it is on the screen.
  function replaceText(editor, text) {
    const { session, renderer } = editor;
    const before = session.getValue();
    const cursor = session.doc.positionToIndex(editor.getCursorPosition());
    const offset = editor.getCursorPosition().row * renderer.lineHeight - session.getScrollTop();
    const last = session.getLength() - 1;
    const { Range } = ace.require("ace/range");
    session.replace(new Range(0, 0, last, session.getLine(last).length), text);
    const { row, column } = session.doc.indexToPosition(samePlace(before, cursor, text));
    editor.selection.moveTo(row, column);
    session.setScrollTop(row * renderer.lineHeight - offset);
    renderer.scrollCursorIntoView();
  }

  // Behind as many characters that are not blank, and as many blanks of those between them as are still there.
  function samePlace(before, place, after) {
    const upTo = before.slice(0, place);
    const blanks = upTo.match(/\s*$/)[0];
    let left = upTo.replace(/\s/g, "").length;
    let found = 0;
    while (left > 0 && found < after.length) {
      left -= /\s/.test(after[found]) ? 0 : 1;
      found += 1;
    }
    for (const blank of blanks) {
      found += after[found] === blank ? 1 : 0;
    }
    return found;
  }
})();
