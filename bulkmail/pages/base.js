"use strict";
{
  // Times by the reader's clock.
  const two = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  const clocks = {
    clock: new Intl.DateTimeFormat("sv-SE", { hour: two.hour, minute: two.minute }),
    clock_second: new Intl.DateTimeFormat("sv-SE", { hour: two.hour, minute: two.minute, second: two.minute }),
    minute: new Intl.DateTimeFormat("sv-SE", two),
    second: new Intl.DateTimeFormat("sv-SE", { ...two, second: "2-digit" }),
  };
  let differs = false;
  for (const time of document.querySelectorAll("time[data-shown]")) {
    const here = clocks[time.dataset.shown].format(new Date(time.dateTime));
    differs ||= here !== time.textContent;
    time.textContent = here;
  }
  const zone = document.querySelector("#zone");
  if (differs && zone) zone.prepend(`Times are in your time zone (${clocks.clock.resolvedOptions().timeZone}), except within sentences. `);
}
