// Arrow keys, search, and which message is open: without this script the page shows the same.
// On a screen as narrow as a phone, the view of a desktop is too small to read.
const phone = document.querySelector("#view-phone");
if (phone && matchMedia("(max-width: 480px)").matches) phone.checked = true;
const links = [...document.querySelectorAll("nav a")];
const messages = [...document.querySelectorAll("article")];
if (links.length) {
  const open = () => {
    const found = messages.findIndex((message) => `#${message.id}` === location.hash);
    return found < 0 ? messages.findIndex((message) => message.classList.contains("chosen")) : found;
  };
  const mark = () => {
    links.forEach((link) => link.removeAttribute("aria-current"));
    links[open()].setAttribute("aria-current", "true");
  };
  mark();
  addEventListener("hashchange", mark);
  addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input")) return;
    const next = messages[open() + step];
    if (next) location.hash = next.id;
  });
  const box = document.querySelector(".search");
  const texts = links.map((link) => link.textContent.toLowerCase());
  box.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    links.forEach((link, number) => {
      link.parentElement.hidden = !words.every((word) => texts[number].includes(word));
    });
  });
  box.hidden = false;
}
