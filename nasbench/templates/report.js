"use strict";
// A header's button sorts its table: rows without a value stay last, equal ones as they were.
function sort(button) {
  const header = button.closest("th"), body = header.closest("table").tBodies[0];
  const column = header.cellIndex, falls = header.getAttribute("aria-sort") === "ascending";
  const key = row => row.cells[column].dataset.sort;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (falls ? -1 : 1);
  const rows = [...body.rows];
  rows.sort((a, b) => (key(a) === "") - (key(b) === "") || compare(key(a), key(b)));
  body.append(...rows);
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falls ? "descending" : "ascending");
  document.getElementById("status").textContent = `Sorted by ${button.textContent}, ${header.getAttribute("aria-sort")}.`;
}
for (const button of document.querySelectorAll(".sortable th button")) button.addEventListener("click", () => sort(button));

// A link to a run opens it.
function reveal() {
  const run = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run instanceof HTMLDetailsElement) {
    run.open = true;
    run.querySelector("summary").focus();
    run.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
reveal();
