// Tables sort by a column when its heading is pressed; what is not a number goes to the end.
"use strict";
(() => {
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim().replace("−", "-");
    const number = Number.parseFloat(text);
    return { number, text: cell.textContent.trim(), isNumber: /^[+-]?[\d.]/.test(text) && Number.isFinite(number) };
  };

  const sortBy = (table, headings, column) => {
    const heading = headings[column];
    const downwards = heading.getAttribute("aria-sort") === "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
    const numbers = rows.some(({ value }) => value.isNumber);
    rows.sort((one, other) => {
      const [a, b] = [one.value, other.value];
      if (numbers && a.isNumber !== b.isNumber) return a.isNumber ? -1 : 1;
      const order = numbers && a.isNumber ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
      return downwards ? -order : order;
    });
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", downwards ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map(({ row }) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sortBy(table, headings, column));
    });
  }
})();
