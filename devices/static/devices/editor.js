// The editor of a configuration. What is wrong is marked in it, and its cursor stands there; else the cursor stands where
// it stood when the form was sent. Tab indents; after Esc, the next one goes on to what follows (with Shift, to what is
// before): nobody who uses the keyboard alone is kept in there, or has to change the text.
"use strict";

(() => {
  const KEPT = "devices.editor";

  window.addEventListener("load", () => {
    for (const widget of document.querySelectorAll(".django-ace-widget")) {
      if (widget.editor) {
        letTabLeave(widget.editor);
        passOverScrollbars(widget);
        describe(widget);
        // For other scripts: as what the page came with is shown.
        widget.editor.showMistake = (place) => {
          markLine(widget.editor, place.line - 1);
          goTo(widget.editor, place);
        };
        widget.editor.selectBetween = (places) => {
          const [start, end] = places.map((place) => placeOf(widget.editor, place));
          widget.editor.selection.setRange({ start, end });
          widget.editor.renderer.scrollCursorIntoView();
        };
        // After what brings back a text that was not saved.
        setTimeout(() => placeCursor(widget));
      }
    }
  });

  function letTabLeave(editor) {
    let isLeaving = false;
    const stay = () => {
      isLeaving = false;
    };
    editor.container.addEventListener("mousedown", stay);
    editor.on("blur", stay);
    // Ahead of the editor, which listens further inside.
    editor.container.addEventListener(
      "keydown",
      (event) => {
        if (event.target !== editor.textInput.getElement()) {
          return; // the box in which one searches has an Esc and a Tab of its own
        }
        if (event.key === "Tab" && isLeaving) {
          event.stopPropagation();
        } else if (event.key !== "Shift") {
          isLeaving = event.key === "Escape";
        }
      },
      true,
    );
  }

  // Browsers stop at whatever can be scrolled; the cursor keys scroll the text anyway.
  function passOverScrollbars(widget) {
    for (const part of widget.querySelectorAll(".ace_scrollbar, .ace_scroller, .ace_gutter")) {
      part.tabIndex = -1;
    }
  }

  // Let a screen reader say what the label and the line below say.
  function describe(widget) {
    const { id } = widget.parentElement.querySelector("textarea[name]");
    const input = widget.editor.textInput.getElement();
    input.setAttribute("aria-label", document.querySelector(`label[for=${id}]`).textContent.replace(/:$/, ""));
    input.setAttribute("aria-describedby", `${id}_helptext`);
  }

  function placeCursor(widget) {
    const { editor } = widget;
    const form = widget.closest("form");
    const links = [...widget.closest(".form-row").querySelectorAll(".marked-lines [data-line]")];
    for (const link of links) {
      markLine(editor, Number(link.dataset.line) - 1);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        goTo(editor, link.dataset);
      });
    }
    const kept = takeKept();
    if (links.length) {
      goTo(editor, links[0].dataset);
      widget.closest(".form-row").scrollIntoView({ block: "nearest" });
    } else if (kept && kept.path === location.pathname && kept.text === editor.getValue()) {
      editor.moveCursorTo(kept.row, kept.column);
      editor.session.setScrollTop(kept.top);
      editor.session.setScrollLeft(kept.left);
    }
    form.addEventListener("submit", () => keep(form, editor));
  }

  function goTo(editor, place) {
    const { row, column } = placeOf(editor, place);
    editor.gotoLine(row + 1, column, false);
    editor.focus();
    keepInView(editor);
  }

  // A page that is laid out late scrolls back to the first line: until somebody does something, the cursor stays in view.
  function keepInView(editor) {
    const look = () => {
      if (!editor.isRowFullyVisible(editor.getCursorPosition().row)) {
        editor.renderer.scrollCursorIntoView();
      }
    };
    editor.renderer.on("afterRender", look);
    for (const kind of ["keydown", "pointerdown", "wheel"]) {
      const end = () => editor.renderer.off("afterRender", look);
      window.addEventListener(kind, end, { capture: true, once: true });
    }
  }

  // Lines and columns count from 1, and the server counts characters, of which some are two here.
  function placeOf(editor, { line, column }) {
    const before = [...editor.session.getLine(line - 1)].slice(0, column - 1);
    return { row: line - 1, column: before.join("").length };
  }

  // Until somebody changes that line.
  function markLine(editor, row) {
    const { session } = editor;
    const { Range } = ace.require("ace/range");
    const anchor = session.doc.createAnchor(row, 0);
    let shown = null;
    const hide = () => {
      session.removeMarker(shown.marker);
      session.removeGutterDecoration(shown.row, "marked-line");
    };
    const show = () => {
      const { row } = anchor;
      shown = { row, marker: session.addMarker(new Range(row, 0, row, 1), "marked-line", "fullLine") };
      session.addGutterDecoration(row, "marked-line");
    };
    // Heard before the anchor moves.
    const look = ({ action, start, end }) => {
      if (start.row === shown.row || (action === "remove" && start.row < shown.row && shown.row <= end.row)) {
        hide();
        anchor.detach();
        session.off("change", look);
      }
    };
    show();
    session.on("change", look);
    anchor.on("change", () => {
      hide();
      show();
    });
  }

  function keep(form, editor) {
    const { pathname } = new URL(form.getAttribute("action") || location.href, location.href);
    const { row, column } = editor.getCursorPosition();
    const [top, left] = [editor.session.getScrollTop(), editor.session.getScrollLeft()];
    const kept = { path: pathname, text: editor.getValue(), row, column, top, left };
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(kept));
    } catch {
      // No room: then it begins at the top.
    }
  }

  function takeKept() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT));
      sessionStorage.removeItem(KEPT);
      return kept;
    } catch {
      return null;
    }
  }
})();
