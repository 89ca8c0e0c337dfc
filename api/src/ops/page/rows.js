// A table of what is told anew each second.

import { cell, make, tableOf } from "./dom.js";

/** What is not worth a look. */
const NOTHING = ["0", "0 s", "0 + 0"];

/** Rows by a name, each with its cells: what is drawn again each second keeps its buttons, and the focus on them. */
export class Rows {
  #body = make("tbody");
  #rows = new Map();

  constructor(container, columns) {
    this.columns = columns;
    container.append(tableOf(columns, this.#body));
  }

  /** Shows these values, each by its name, the chosen one as such; or what is said if there are none. */
  show(values, nameOf, ifNone, chosen) {
    const names = new Set(values.map(nameOf));
    for (const [name, { element }] of this.#rows) if (!names.has(name)) (element.remove(), this.#rows.delete(name));
    this.#body.querySelector("tr.none")?.remove();
    if (!values.length) {
      const empty = make("td", { className: "empty", colSpan: this.columns.length }, ifNone);
      this.#body.append(make("tr", { className: "none" }, empty));
    }
    values.forEach((value, index) => {
      const row = this.#row(nameOf(value));
      if (this.#body.children[index] !== row.element) this.#body.insertBefore(row.element, this.#body.children[index] ?? null);
      this.columns.forEach((column, at) => this.#fill(row, at, column.cell(value)));
      row.element.classList.toggle("selected", nameOf(value) === chosen);
    });
  }

  #row(name) {
    const known = this.#rows.get(name);
    if (known) return known;
    const cells = this.columns.map((column) => cell(column));
    const row = { element: make("tr", {}, cells), cells, shown: cells.map(() => null) };
    this.#rows.set(name, row);
    return row;
  }

  /** A cell is text, or `[key, make]`: elements that are made anew when the key is another one. */
  #fill(row, at, content) {
    const [key, build] = Array.isArray(content) ? content : [content, () => [content]];
    if (row.shown[at] === key) return;
    row.shown[at] = key;
    row.cells[at].replaceChildren(...build());
    row.cells[at].classList.toggle("zero", NOTHING.includes(key));
  }
}
