// Tables are never cut: where one is wider than its column it is set smaller, and where that is not enough each row
// stands as a list of its cells with the names of their columns.
"use strict";

function columnNames(table) {
  const names = [];
  for (const row of table.tHead?.rows ?? []) {
    let column = 0;
    for (const cell of row.cells)
      for (let span = 0; span < cell.colSpan; span++, column++)
        if (cell.innerText.trim()) (names[column] ??= new Set()).add(cell.innerText.trim());
  }
  return names.map((found) => [...(found ?? [])].join(", "));
}

function fitTable(table) {
  const right = (part) => part.getBoundingClientRect().right;
  const cut = () => right(table) > right(table.parentElement) || table.scrollWidth > table.parentElement.clientWidth;
  table.classList.remove("small", "stacked");
  if (cut()) table.classList.add("small");
  if (!cut()) return;
  const names = columnNames(table);
  for (const row of table.tBodies[0]?.rows ?? [])
    [...row.cells].forEach((cell, i) => (cell.dataset.name = names[names.length - row.cells.length + i] ?? ""));
  table.classList.replace("small", "stacked");
}

function fitTables() {
  document.querySelectorAll(".bd-article table").forEach(fitTable);
}

let width = 0;
new ResizeObserver(([seen]) => {
  if (seen.contentRect.width === width) return;
  width = seen.contentRect.width;
  fitTables();
}).observe(document.querySelector(".bd-article") ?? document.body);
document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", fitTables));
