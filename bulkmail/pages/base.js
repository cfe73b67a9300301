"use strict";
// Times by the reader's clock; says whether that made a difference.
const part = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const clocks = {
  clock: new Intl.DateTimeFormat("sv-SE", { hour: part.hour, minute: part.minute }),
  clock_second: new Intl.DateTimeFormat("sv-SE", { hour: part.hour, minute: part.minute, second: part.second }),
  minute: new Intl.DateTimeFormat("sv-SE", { ...part, second: undefined }),
  second: new Intl.DateTimeFormat("sv-SE", part),
};
const localise = (root) => {
  let differs = false;
  for (const time of root.querySelectorAll("time[data-shown]")) {
    const here = clocks[time.dataset.shown].format(new Date(time.dateTime));
    differs ||= here !== time.textContent;
    time.textContent = here;
  }
  return differs;
};
if (localise(document)) {
  document.querySelector("#zone")?.prepend(
    `Times are in your time zone (${clocks.clock.resolvedOptions().timeZone}), except within sentences. `,
  );
}
