"""What the page of an evaluation adds: its style, and the script that sorts tables and orders pictures."""

STYLE = """
body { max-width: 90rem }
.wide { position: relative; overflow-x: auto }
.wide th, .wide td { white-space: nowrap }
thead th { vertical-align: bottom }
th button { all: unset; cursor: pointer; font-weight: 600 }
th[aria-sort=ascending] button::after { content: " \\25B2" }
th[aria-sort=descending] button::after { content: " \\25BC" }
tr.best { background: color-mix(in srgb, var(--accent) 12%, transparent) }
dt { font-weight: 600 }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.controls label { margin-right: 1.5rem }
select { font: inherit }
.beside { display: grid; grid-template-columns: minmax(6rem, 10rem) minmax(0, 1fr); gap: 1rem; align-items: start;
          padding-bottom: 1rem; border-bottom: 1px solid var(--line) }
.references { position: sticky; top: .5rem; max-height: 100vh; overflow: auto; display: grid; gap: .5rem }
.shots > li { content-visibility: auto; contain-intrinsic-size: auto 14rem }
.pairs { grid-template-columns: repeat(2, minmax(0, 16rem)) }
.pairs > [data-by="0"] { grid-column: 1 } .pairs > [data-by="1"] { grid-column: 2 }
.worst { grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)) }
.worst > li { display: grid; grid-template-columns: 3fr 2fr; gap: .4rem }
.strip { display: grid; grid-template-columns: 1fr 1fr; gap: .25rem; align-content: start }
.copy { color: var(--b) }
figure:has(.copy) img { outline: 3px solid var(--b) }
.plot { max-width: 60rem }
.line { fill: none; stroke-width: 2 }
.bar { stroke-width: 1.5; opacity: .6 }
.a { stroke: var(--a) } .b { stroke: var(--b) } .c { stroke: var(--c) }
.d { stroke: var(--d) } .e { stroke: var(--e) } .f { stroke: var(--f) }
.point { fill: var(--paper); stroke-width: 2.5 }
.point.chosen { stroke-width: 5 }
svg text { fill: var(--ink) }
@media (max-width: 40rem) { .beside { grid-template-columns: minmax(0, 1fr) }
  .references { position: static; grid-auto-flow: column; grid-auto-columns: 6rem } }
@media print { .controls { display: none !important } .references { position: static; max-height: none }
  .shots > li { content-visibility: visible } }
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const first = column === 0 || head.dataset.better === "-1" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((one, two) => {
      const a = value(one, column), b = value(two, column);
      if (a === null || b === null) return (a === null) - (b === null);
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    });
    heads.forEach(each => each.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", order);
    body.append(...rows);
  }));
}
const order = document.getElementById("order"), show = document.getElementById("show");
if (order) {
  const lists = [...document.querySelectorAll("ul.shots")].map(list => [list, [...list.children]]);
  order.closest(".controls").hidden = false;
  order.addEventListener("change", () => {
    const column = order.value === "" ? null : Number(order.value);
    const sign = order.selectedOptions[0].dataset.better === "-1" ? -1 : 1;
    for (const [list, items] of lists) {
      const scored = items.map(item => [item, column === null ? 0 : Number(item.dataset.s.split(" ")[column])]);
      scored.sort(([, a], [, b]) => isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b));
      list.append(...scored.map(([item]) => item));
    }
  });
  show.addEventListener("change", () => {
    for (const [, items] of lists)
      for (const item of items) item.hidden = show.value !== "" && item.dataset.by !== show.value;
  });
}
"""
"""Without it the page says all the same, in the order that it was written in."""
