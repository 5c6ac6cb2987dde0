"use strict";

// Does what the button does that is there for browsers without scripts. Enter stops: the page is loaded anew too often to
// get to that by Tab.
document.getElementById("stop").focus();
addEventListener("load", () => document.getElementById("deletion").requestSubmit());
