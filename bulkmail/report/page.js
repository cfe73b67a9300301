// Search and sort: without this script the page says the same.
const table = document.querySelector("table.rows");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const box = document.querySelector(".search");
  const input = box.querySelector("input");
  const said = box.querySelector("output");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const search = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, number) => {
      row.hidden = !wanted.every((word) => texts[number].includes(word));
      shown += !row.hidden;
    });
    said.value = wanted.length ? `${shown} of ${rows.length} rows` : "";
  };
  input.addEventListener("input", search);
  box.hidden = false;
  const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      const compare = new Intl.Collator(undefined, { numeric: true }).compare;
      const sorted = rows.map((row, number) => [keyOf(row, column), number, row]);
      sorted.sort((one, other) => (falls ? -1 : 1) * compare(one[0], other[0]) || one[1] - other[1]);
      body.replaceChildren(...sorted.map((entry) => entry[2]));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    });
  });
}
