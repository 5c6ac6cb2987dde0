// The editor takes Tab for itself, to indent. Esc gives the next Tab back to the browser, which goes on to what follows
// (with Shift, to what is before): nobody who uses the keyboard alone is kept in there, or has to change the text.
"use strict";

window.addEventListener("load", () => {
  for (const widget of document.querySelectorAll(".django-ace-widget")) {
    if (widget.editor) {
      letTabLeave(widget.editor);
      passOverScrollbars(widget);
      describe(widget);
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
