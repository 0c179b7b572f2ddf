
"use strict";
{
  const sortValue = (row, column) => {
    const cell = row.rows[0].cells[column];
    const text = cell.dataset.sort ?? cell.textContent;
    return text === "" ? null : cell.classList.contains("text") ? text : Number(text);
  };

  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  };

  const sortable = (table, rows) => {
    table.tHead.addEventListener("click", (event) => {
      const header = event.target.closest("th");
      if (!header) return;
      const down = header.getAttribute("aria-sort") === "ascending";
      for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const column = header.cellIndex;
      rows.sort((a, b) => compare(sortValue(a, column), sortValue(b, column), down ? -1 : 1));
      table.append(...rows);
    });
  };

  const unfolding = (row) => {
    const history = row.rows[1];
    const button = row.querySelector("td.name button");
    history.hidden = true;
    button.addEventListener("click", () => {
      history.hidden = !history.hidden;
      button.setAttribute("aria-expanded", String(!history.hidden));
    });
  };

  const filterable = (section, rows) => {
    const count = section.querySelector("output");
    section.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.rows[0].textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      count.value = words.length ? `${shown} of ${rows.length} rows` : "";
    });
  };

  for (const section of document.querySelectorAll(".filtered")) {
    const table = section.querySelector("table");
    const rows = [...table.querySelectorAll("tbody.row")];
    sortable(table, rows);
    rows.forEach(unfolding);
    filterable(section, rows);
  }

  const specs = JSON.parse(document.getElementById("specs").textContent);
  const options = { mode: "vega", renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true } };
  for (const [name, spec] of Object.entries(specs)) {
    vegaEmbed(document.getElementById(`plot-${name}`), spec, options);
  }
}
