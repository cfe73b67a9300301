// What makes the pages quicker to use.  Without this script every page does the same by its forms and links.
htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.historyEnabled = false;
htmx.config.selfRequestsOnly = true;

// -- times in the browser's own zone
document.addEventListener("htmx:afterSwap", (event) => localise(event.target));

// -- a run as it goes on
const stream = document.querySelector("[data-events]");
if (stream) {
  const source = new EventSource(stream.dataset.events);
  source.addEventListener("part", (event) => {
    const part = JSON.parse(event.data);
    const old = document.getElementById(part.id);
    if (!old) return;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.innerHTML = part.html;
    localise(old);
    if (focused) document.getElementById(focused)?.focus();
  });
  source.addEventListener("reload", () => { source.close(); location.reload(); });
  source.addEventListener("full", () => { source.close(); setTimeout(() => location.reload(), 5000); });
  addEventListener("pagehide", () => source.close());
}

// -- a line of a text: from a finding or an error
const goTo = (hash, line) => {
  const area = hash && document.querySelector(`textarea${hash}, input${hash}, select${hash}`);
  if (!area) return false;
  area.focus();
  if (line && area.matches("textarea")) {
    const before = area.value.split("\n").slice(0, line - 1);
    const start = before.reduce((sum, text) => sum + text.length + 1, 0);
    const end = area.value.indexOf("\n", start);
    area.setSelectionRange(start, end < 0 ? area.value.length : end);
    const shown = area.parentElement.querySelectorAll(".lines div")[line - 1];
    area.scrollTop = shown ? shown.offsetTop - area.clientHeight / 3 : 0;
  }
  area.scrollIntoView({ block: "center" });
  return true;
};
addEventListener("load", () => {
  goTo(/^#[\w-]+$/.test(location.hash) && location.hash, Number(new URLSearchParams(location.search).get("line")));
});

// -- the editor: line numbers, columns to insert, a draft that a closed tab does not lose
const form = document.getElementById("compose");
if (form) {
  let current = form.querySelector("textarea");
  form.addEventListener("focusin", (event) => {
    if (event.target.matches("textarea, #subject, #preheader")) current = event.target;
  });
  const insert = (before, after = "") => {
    const [start, end] = [current.selectionStart, current.selectionEnd];
    const chosen = current.value.slice(start, end);
    current.focus();
    current.setRangeText(before + chosen + after, start, end, "end");
    current.dispatchEvent(new Event("input", { bubbles: true }));
  };
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-column]");
    if (chip) insert(`{{ ${chip.dataset.column} }}`);
    const mark = event.target.closest("[data-before]");
    if (mark) insert(mark.dataset.before, mark.dataset.after ?? "");
  });
  form.querySelectorAll(".editor textarea").forEach((area) => {
    const lines = document.createElement("div");
    lines.className = "lines";
    lines.setAttribute("aria-hidden", "true");
    area.before(lines);
    const show = () => {
      const rows = area.value.split("\n");
      const fits = rows.length < 4000;
      area.parentElement.classList.toggle("numbered", fits);
      lines.hidden = !fits;
      if (fits) lines.replaceChildren(...rows.map((text) => {
        const row = document.createElement("div");
        row.textContent = text || "\u200b";
        return row;
      }));
      lines.scrollTop = area.scrollTop;
    };
    area.addEventListener("input", show);
    area.addEventListener("scroll", () => { lines.scrollTop = area.scrollTop; });
    show();
  });
  // A link to a line puts the cursor there, and leaves what was typed alone.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-line]");
    if (link && goTo(link.hash, Number(link.dataset.line))) event.preventDefault();
  });
  // On a phone the preview begins as a phone shows it.
  if (matchMedia("(max-width: 40rem)").matches && !new URLSearchParams(location.search).has("as")) {
    const phone = document.querySelector("input[name=as][value=phone]");
    phone.checked = true;
    addEventListener("load", () => phone.dispatchEvent(new Event("change", { bubbles: true })));
  }
  const fields = () => [...form.querySelectorAll("input[name], textarea[name], select[name]")]
    .filter((one) => !["digest", "as", "row"].includes(one.name) && one.type !== "radio" && one.type !== "file");
  const key = `draft:${location.pathname}`;
  const kept = JSON.parse(sessionStorage.getItem(key) ?? "null");
  const offer = document.getElementById("restore");
  if (form.dataset.saved) sessionStorage.removeItem(key);
  else if (kept && offer && fields().some((one) => one.name in kept.values && kept.values[one.name] !== one.value)) {
    offer.hidden = false;
    offer.querySelector("[data-restore]").addEventListener("click", () => {
      fields().forEach((one) => { if (one.name in kept.values) {
        one.value = kept.values[one.name];
        one.dispatchEvent(new Event("input", { bubbles: true }));
      } });
      offer.hidden = true;
    });
    offer.querySelector("[data-forget]").addEventListener("click", () => {
      sessionStorage.removeItem(key);
      offer.hidden = true;
    });
  }
  form.addEventListener("input", () => {
    const values = Object.fromEntries(fields().map((one) => [one.name, one.value]));
    try { sessionStorage.setItem(key, JSON.stringify({ values })); } catch { /* too long to keep */ }
  });
}
document.querySelectorAll(".no-script").forEach((one) => { one.hidden = true; });
document.querySelectorAll("[data-script]").forEach((one) => { one.hidden = false; });

// -- a form goes once: a second press of its button would send it again
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
  setTimeout(() => { delete event.target.dataset.sent; }, 10_000);
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((one) => { delete one.dataset.sent; }));

// -- some messages in doubt: choosing one chooses "those chosen below"
document.querySelector("[data-choose]")?.addEventListener("change", (event) => {
  if (event.target.name === "row") event.currentTarget.querySelector("[name=which][value=some]").checked = true;
});
