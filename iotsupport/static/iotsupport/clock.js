"use strict";

// Says where the clock of this browser and that of the server are apart: of one machine alone, nobody sees it.
{
  const there = Date.parse(document.getElementById("server-clock").dateTime);
  const [navigation] = performance.getEntriesByType("navigation");
  // When the answer came; what follows takes its time.
  const here = performance.timeOrigin + (navigation ? navigation.responseStart : 0);
  const seconds = Math.round((here - there) / 1000);
  const minutes = Math.round(Math.abs(seconds) / 60);
  const said = document.getElementById("browser-clock");
  if (Math.abs(seconds) < 60) {
    said.textContent = "Your clock agrees.";
  } else {
    const apart = `${minutes} minute${minutes === 1 ? "" : "s"} ${seconds > 0 ? "ahead of" : "behind"} the server's`;
    said.className = "state behind";
    said.textContent = `Your clock is ${apart}: set the one that is wrong, best by a time server (NTP).`;
  }
}
