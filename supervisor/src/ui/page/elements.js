"use strict";
// What everything on the page is made of: words for figures, and elements. Everything that the page is told is put into it as
// text, never as markup. A row that is still there keeps its element, so that a selection or the focus is not lost.

const at = (id) => document.getElementById(id);

// ---- words ----

const number = new Intl.NumberFormat("en");
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit += 1) count /= 1024;
  return `${unit === 0 ? number.format(Math.round(count)) : count.toFixed(1)} ${units[unit]}`;
}

const rate = (count) => (count === null || count === undefined ? "–" : `${bytes(count)}/s`);

function span(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

const duration = (seconds) => (seconds < 1 ? `${small.format(seconds * 1000)} ms` : `${small.format(seconds)} s`);

// How long ago, by the gateway's own clock; the browser's may be wrong.
function ago(time) {
  const then = Date.parse(time);
  return Number.isNaN(then) ? time : `${span(Math.max(0, now - then) / 1000)} ago`;
}

// ---- elements ----

function set(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

function make(tag, classes, text) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  return element;
}

// A cell: its text, and how it looks. `state` is one of a few words of ours, never something that was told.
const cell = (text, more = {}) => ({ text: text === null || text === undefined ? "" : String(text), ...more });
const count = (value) => cell(typeof value === "number" ? number.format(value) : value, { classes: "n" });

function fillCell(element, wanted, label, heading) {
  const empty = wanted.text === "" && !wanted.build;
  const classes = [wanted.classes ?? "", empty ? "void" : ""].join(" ").trim();
  if (element.className !== classes) element.className = classes;
  if (!heading && element.dataset.label !== label) element.dataset.label = label;
  if (wanted.title !== undefined && element.title !== wanted.title) element.title = wanted.title;
  if (wanted.build) {
    if (!element.firstChild) wanted.build(element);
    return;
  }
  let place = element;
  if (wanted.state || wanted.note) {
    if (!element.firstElementChild) element.replaceChildren(make("span"));
    place = element.firstElementChild;
    const look = wanted.state ? `state ${wanted.state}` : "";
    if (place.className !== look) place.className = look;
    let note = place.nextElementSibling;
    if (wanted.note && !note) element.append(note = make("span", "note"));
    if (note && !wanted.note) note.remove();
    if (note && wanted.note) set(note, wanted.note);
  } else if (element.firstElementChild) {
    element.replaceChildren();
  }
  set(place, wanted.text);
}

// Makes a table's body what `rows` says: each has a key, a first cell that names it, and the others.
function fill(body, rows, empty) {
  const labels = [...body.closest("table").tHead.rows[0].cells].map((head) => head.textContent);
  const wanted = rows.length ? rows : [{ key: "", cells: [cell(empty)], empty: true }];
  const stays = new Set(wanted.map((row) => row.key)), known = new Map();
  for (const row of [...body.rows]) {
    if (!stays.has(row.dataset.key) || known.has(row.dataset.key)) row.remove();
    else known.set(row.dataset.key, row);
  }
  let place = body.firstElementChild;
  for (const { key, cells, empty: none } of wanted) {
    let row = known.get(key);
    if (!row) {
      row = make("tr", none ? "empty" : "");
      row.setAttribute("role", "row");
      row.dataset.key = key;
      cells.forEach((_, index) => {
        const element = make(index === 0 && !none ? "th" : "td");
        if (index === 0 && !none) element.scope = "row";
        element.setAttribute("role", index === 0 && !none ? "rowheader" : "cell");
        if (none) element.colSpan = labels.length;
        row.append(element);
      });
    }
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
    cells.forEach((one, index) => fillCell(row.cells[index], one, labels[index], index === 0));
  }
}

// Told once: a table that is laid out as blocks on a phone is a table all the same.
function nameRoles() {
  const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TH: "columnheader" };
  for (const table of document.querySelectorAll("table")) {
    for (const element of [table, ...table.querySelectorAll("thead, tbody, tr, th")]) {
      element.setAttribute("role", roles[element.tagName]);
    }
  }
}
