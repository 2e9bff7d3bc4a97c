// SPDX-License-Identifier: BSD-3-Clause
// A table that is too wide for the window becomes a list: each cell then shows the heading of its column.
"use strict";

const MIN_CHARACTERS = 16; // of a line in a cell; a table with shorter lines is hard to read

function stackWideTables() {
  for (const table of document.querySelectorAll(".table-wrapper > table")) {
    table.classList.remove("stacked");
    table.classList.toggle("stacked", table.parentElement.scrollWidth > table.parentElement.clientWidth);
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".table-wrapper > table")) {
    const headings = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, column) => {
        cell.setAttribute("data-heading", headings[column] || "");
        cell.style.minWidth = `${Math.min(cell.textContent.trim().length, MIN_CHARACTERS)}ch`;
      });
    }
  }
  stackWideTables();
  window.addEventListener("resize", stackWideTables);
});
