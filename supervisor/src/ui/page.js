"use strict";
// Follows the gateway: asks for its facts once a second and shows them. Everything that it is told is put into the page as
// text, never as markup. A row that is still there keeps its element, so that a selection or the focus is not lost.

const at = (id) => document.getElementById(id);
const PERIOD_MS = 1000, PATIENCE_MS = 5000, SPAN_MS = 600_000, WIDTH = 600, HEIGHT = 150;
const SVG = "http://www.w3.org/2000/svg";

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

// ---- plots ----

let run = "", last = 0, points = [];

function take(traffic) {
  if (traffic.run !== run) points = [];
  run = traffic.run;
  last = traffic.last;
  points.push(...traffic.points);
  points = points.slice(-traffic.kept);
}

function path(svg, index, classes, d) {
  let element = svg.querySelectorAll("path")[index];
  if (!element) {
    element = document.createElementNS(SVG, "path");
    element.setAttribute("class", classes);
    svg.append(element);
  }
  if (element.getAttribute("d") !== d) element.setAttribute("d", d);
}

const place = (point, end) => (WIDTH * (point.at_ms - (end - SPAN_MS))) / SPAN_MS;

function line(read, end, top) {
  let d = "";
  let before = null;
  for (const point of points) {
    const value = read(point), x = place(point, end);
    if (value === null || x < 0) { before = null; continue; }
    // A gap is a gap: a supervisor that was away has not counted zero.
    const joins = before !== null && point.at_ms - before < 5000;
    d += `${joins ? "L" : "M"}${x.toFixed(1)} ${(HEIGHT - (HEIGHT - 8) * (value / top)).toFixed(1)}`;
    before = point.at_ms;
  }
  return d;
}

// The next of 1, 2, 5, 10… so that the scale does not change with every point.
function round(value, least) {
  if (value <= least) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

function plotLines(id, reads, names, show, least, unit = 1) {
  const figure = at(id), svg = figure.querySelector("svg"), newest = points.at(-1);
  const end = newest?.at_ms ?? 0;
  const values = points.flatMap((point) => reads.map((read) => read(point) ?? 0));
  const top = round(values.reduce((a, b) => Math.max(a, b), 0) / unit, least) * unit;
  reads.forEach((read, index) => path(svg, index, "ab"[index], line(read, end, top)));
  set(figure.querySelector(".top"), show(top));
  const told = reads.map((read) => show(newest ? read(newest) : null));
  figure.querySelectorAll("b").forEach((value, index) => set(value, told[index]));
  svg.setAttribute("aria-label", names.map((name, index) => `${name}: ${told[index]} now`).join("; "));
}

// From 0.1 ms to 10 s, each power of ten as high as the next.
const logarithmic = (seconds) => Math.min(1, Math.max(0.02, (Math.log10(seconds) + 4) / 5));

function plotPauses() {
  const figure = at("plot-pauses"), svg = figure.querySelector("svg"), newest = points.at(-1);
  const end = newest?.at_ms ?? 0;
  const rules = [0.2, 0.4, 0.6, 0.8].map((part) => `M0 ${HEIGHT * part}H${WIDTH}`).join("");
  path(svg, 0, "rule", rules);
  const moved = points.filter((point) => point.moved > 0 && place(point, end) >= 0);
  const bar = (point) => `M${place(point, end).toFixed(1)} ${HEIGHT}V${(HEIGHT * (1 - logarithmic(point.pause))).toFixed(1)}`;
  path(svg, 1, "c", moved.map(bar).join(""));
  const latest = moved.at(-1);
  const told = latest
    ? `${latest.beyond ? "over" : "at most"} ${duration(latest.pause)}, ${number.format(latest.moved)} ${latest.moved === 1 ? "tunnel" : "tunnels"}, ${span((end - latest.at_ms) / 1000)} ago`
    : "none in the last 10 min";
  set(figure.querySelector("b"), told);
  svg.setAttribute("aria-label", `Handover pauses: ${told}`);
}

function plot() {
  plotLines("plot-connections", [(point) => point.connections, (point) => point.tunnels], ["connections", "tunnels"],
    (value) => (value === null ? "–" : number.format(value)), 10);
  const top = Math.max(1, ...points.map((point) => Math.max(point.bytes_in ?? 0, point.bytes_out ?? 0)));
  const unit = 1024 ** Math.floor(Math.log(top) / Math.log(1024));
  plotLines("plot-throughput", [(point) => point.bytes_in, (point) => point.bytes_out], ["from clients", "to clients"], rate, 1, unit);
  plotPauses();
}

// ---- facts ----

let now = Date.now();
const STATES = {
  serving: "good", starting: "warn", draining: "warn", "no worker": "bad",
  Healthy: "good", Unhealthy: "bad", Draining: "warn", Unknown: "calm",
};
const state = (word, note) => cell(word, { state: Object.hasOwn(STATES, word) ? STATES[word] : "calm", note });

function showProcesses({ supervisor, prober, listeners, version }) {
  const rows = [];
  for (const { name, address, sites, workers } of listeners) {
    const named = name === address ? cell(address) : cell(`${name} ${address}`);
    const served = cell(sites.join(", "), { classes: "wide" });
    if (!workers.length) {
      rows.push({ key: `${address} `, cells: [named, state("no worker"), ...Array(5).fill(count("")), served, cell("")] });
    }
    for (const worker of workers) {
      const pinned = worker.pinned ? ` (${number.format(worker.pinned)} pinned)` : "";
      rows.push({
        key: `${address} ${worker.pid}`,
        cells: [named, state(worker.state, worker.reason), cell(worker.pid, { classes: "n" }), cell(worker.generation, { classes: "n" }),
          cell(worker.revision, { classes: "n" }), count(worker.tunnels),
          cell(number.format(worker.protected) + pinned, { classes: "n" }), served, cell(worker.version)],
      });
    }
  }
  const rest = (of) => [...Array(4).fill(count("")), cell(""), cell(of)];
  rows.push({ key: "prober", cells: [cell("prober"), state(prober.state), cell(prober.pid, { classes: "n" }), ...rest(prober.version)] });
  rows.push({ key: "supervisor", cells: [cell("supervisor"), state("serving"), cell(supervisor.pid, { classes: "n" }), ...rest(version)] });
  fill(at("workers"), rows, "");
}

function showPools(pools) {
  const rows = pools.flatMap(({ pool, settings, backends }) => backends.map((backend) => {
    const host = backend.address.includes(":") ? `[${backend.address}]` : backend.address;
    const name = `${host}:${backend.port}`;
    return {
      key: JSON.stringify([pool, settings, name]),
      cells: [cell(name), state(backend.state), cell(pool), cell(settings),
        cell(backend.since && ago(backend.since), { title: backend.since }), cell(backend.last, { classes: "wide" })],
    };
  }));
  fill(at("backends"), rows, "no backends");
}

function showRevisions(revisions) {
  const newest = revisions.findLast((it) => it.in_force)?.revision;
  const rows = revisions.map((it, index) => {
    const before = revisions[index - 1]?.revision;
    const buttons = (place) => {
      if (before !== undefined) place.append(compare(before, it.revision, "What it changed", `What revision ${it.revision} changed`));
      if (!it.in_force) place.append(compare(null, it.revision, "Against what is in force", `Revision ${it.revision} against what is in force`));
    };
    const some = before !== undefined || !it.in_force;
    return {
      // Its buttons depend on these.
      key: JSON.stringify([it.revision, it.in_force, before ?? 0]),
      cells: [cell(it.revision, { classes: "n", note: it.in_force ? "in force" : undefined }),
        cell(ago(it.applied_at), { title: it.applied_at }), cell(it.source, { classes: "wide" }), cell(it.by),
        some ? { text: "", build: buttons, classes: "wide" } : cell("the first that is kept")],
    };
  });
  at("revisions").dataset.inForce = newest ?? 0;
  fill(at("history"), rows.reverse(), "no revisions");
}

function showTiles({ status, health, stopping }) {
  const workers = status.listeners.flatMap((listener) => listener.workers);
  const sum = (of) => workers.reduce((total, worker) => total + of(worker), 0);
  const open = sum((worker) => worker.tunnels), safe = sum((worker) => worker.protected);
  const backends = health.flatMap((pool) => pool.backends);
  const newest = points.at(-1);
  set(at("version"), status.version);
  set(at("tile-state"), stopping ? "stopping" : status.ready ? "ready" : "not ready");
  set(at("tile-revision"), status.revision);
  set(at("tile-tunnels"), number.format(open));
  set(at("tile-protected"), safe === open ? "all" : `${number.format(safe)} of ${number.format(open)}`);
  set(at("tile-connections"), newest ? number.format(newest.connections) : "–");
  set(at("tile-requests"), newest?.requests == null ? "–" : `${small.format(newest.requests)}/s`);
  set(at("tile-backends"), `${backends.filter((it) => it.state === "Healthy").length} of ${backends.length}`);
  document.title = `${status.problems.length ? "⚠ " : ""}Holdfast, revision ${status.revision}`;
}

function showProblems(problems) {
  const list = at("problems");
  list.hidden = problems.length === 0;
  while (list.children.length > problems.length) list.lastElementChild.remove();
  problems.forEach((problem, index) => {
    if (!list.children[index]) list.append(make("li"));
    set(list.children[index], problem);
  });
}

// By cause, in the words of the log and of holdfast_tunnels_closed_total.
function showEnds(ended) {
  const causes = Object.entries(ended).filter(([, times]) => times > 0);
  causes.sort(([one, few], [other, many]) => many - few || one.localeCompare(other));
  at("ends").hidden = causes.length === 0;
  set(at("ends"), `Ended so far: ${causes.map(([cause, times]) => `${cause} ${number.format(times)}`).join(", ")}`);
}

function show(facts) {
  now = facts.now_ms;
  take(facts.traffic);
  showTiles(facts);
  showProblems(facts.status.problems);
  showEnds(facts.status.tunnels_ended);
  showProcesses(facts.status);
  showPools(facts.health);
  showRevisions(facts.revisions);
  plot();
}

// What is unusual about a tunnel: that it cannot move, that a side has ended already.
function notes({ pinned, client_end: client, backend_end: backend }) {
  const ended = [["client", client], ["backend", backend]].filter(([, end]) => end && end !== "open");
  const words = ended.map(([side, end]) => `${side}: ${end}`);
  if (pinned) words.push(`pinned: ${pinned}`);
  return words.length ? words.join(", ") : undefined;
}

function showTunnels({ total, matching, tunnels }) {
  const rows = tunnels.map((it) => ({
    key: JSON.stringify([it.listener, it.id]),
    cells: [cell(it.client), cell(it.site, { title: `listener ${it.listener}` }), cell(it.pool, { title: `settings ${it.settings}` }),
      cell(it.backend), cell(span(it.age_seconds), { classes: "n", title: it.opened }), cell(span(it.idle_seconds), { classes: "n" }),
      cell(bytes(it.bytes_in), { classes: "n", title: `${it.bytes_in} bytes` }), cell(bytes(it.bytes_out), { classes: "n", title: `${it.bytes_out} bytes` }),
      cell(rate(it.rate_in), { classes: "n" }), cell(rate(it.rate_out), { classes: "n" }),
      cell(it.id, { title: it.trace_id ? `trace ${it.trace_id}` : "", note: notes(it) })],
  }));
  fill(at("open-tunnels"), rows, total ? "no tunnel matches" : "no tunnels");
  const shown = tunnels.length < matching ? `, ${number.format(tunnels.length)} shown` : "";
  set(at("found"), matching === total ? `${number.format(total)} open${shown}` : `${number.format(matching)} of ${number.format(total)} match${shown}`);
}

// ---- differences ----

function compare(from, to, text, title) {
  const button = make("button", "", text);
  button.type = "button";
  button.setAttribute("aria-label", title);
  button.addEventListener("click", () => showDifference(from ?? to, from === null ? null : to, title, button));
  return button;
}

let opener = null;

async function showDifference(from, to, title, button) {
  opener = button;
  const target = to ?? Number(at("revisions").dataset.inForce);
  set(at("difference-title"), to === null ? `From revision ${from} to revision ${target}, which is in force` : title);
  set(at("difference-word"), "…");
  at("changes").replaceChildren();
  at("difference").hidden = false;
  at("difference").focus();
  let told;
  try {
    told = await ask(`/ui/difference.json?from=${from}&to=${target}`);
  } catch (fault) {
    set(at("difference-word"), `the gateway did not answer (${fault.message})`);
    return;
  }
  if (opener !== button) return;
  if (told.error) {
    set(at("difference-word"), told.error);
    return;
  }
  const all = told.changes.length + told.more;
  set(at("difference-word"), all === 0
    ? "The same: defaults filled in, both revisions say the same."
    : `${number.format(all)} ${all === 1 ? "place differs" : "places differ"}${told.more ? `; the first ${told.changes.length}` : ""}. Secrets are never shown.`);
  for (const { path, before, after } of told.changes) {
    const item = make("li");
    item.append(make("span", "code", path));
    for (const [tag, value] of [["del", before], ["ins", after]]) {
      if (value === null) continue;
      const element = make(tag);
      element.append(make("pre", "", value));
      item.append(element);
    }
    at("changes").append(item);
  }
}

function closeDifference() {
  at("difference").hidden = true;
  opener?.focus();
  opener = null;
}

// ---- following ----

async function ask(where, headers = {}) {
  const answer = await fetch(where, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401 && !headers.Authorization) signIn();
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

let paused = false, heard = null, visible = false;
const turns = {};

function tell(alive) {
  document.body.classList.toggle("stale", !alive);
  const lamp = alive ? (paused ? "lamp" : "lamp good") : "lamp bad";
  if (at("lamp").className !== lamp) at("lamp").className = lamp;
  const since = heard ? heard.toLocaleTimeString() : "ever";
  set(at("live-text"), alive ? (paused ? "paused" : "live") : heard ? `no answer since ${since}; trying on` : "no answer; trying on");
}

// What a gateway that is away looks like; everything else is a fault of this page.
const isSilence = (fault) =>
  ["TimeoutError", "AbortError"].includes(fault.name) || /^HTTP |fetch|network/i.test(fault.message);

// One request at a time of each kind, and the next one a second after its answer: a slow gateway is asked less.
function follow(name, once) {
  const turn = turns[name] = (turns[name] ?? 0) + 1;
  const next = async () => {
    if (turn !== turns[name]) return;
    if (!paused && !document.hidden) await once();
    setTimeout(next, PERIOD_MS);
  };
  next();
}

async function followFacts() {
  try {
    const facts = await ask(`/ui/state.json?run=${run}&after=${last}`);
    show(facts);
    heard = new Date();
    tell(true);
  } catch (fault) {
    if (!isSilence(fault)) throw fault;
    if (!asking) tell(false);
  }
}

async function followTunnels(anyway = false) {
  if (!visible && !anyway) return;
  const query = new URLSearchParams({ search: at("search").value, order: at("order").value, rows: at("rows").value });
  const asked = query.toString();
  try {
    const listed = await ask(`/ui/tunnels.json?${asked}`);
    const wanted = new URLSearchParams({ search: at("search").value, order: at("order").value, rows: at("rows").value });
    // What was typed meanwhile has an answer of its own.
    if (wanted.toString() === asked) showTunnels(listed);
  } catch (fault) {
    if (!isSilence(fault)) throw fault;
  }
}

function begin() {
  at("main").hidden = false;
  at("pause").hidden = false;
  at("sections").hidden = false;
  nameRoles();
  at("pause").addEventListener("click", () => {
    paused = !paused;
    at("pause").setAttribute("aria-pressed", String(paused));
    set(at("pause"), paused ? "Follow" : "Pause");
    tell(true);
  });
  at("filter").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["search", "order", "rows"]) at(name).addEventListener("input", () => followTunnels(true));
  at("difference-close").addEventListener("click", closeDifference);
  at("difference").addEventListener("keydown", (event) => event.key === "Escape" && closeDifference());
  document.addEventListener("visibilitychange", () => !document.hidden && follow("facts", followFacts));
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible) follow("tunnels", followTunnels);
  }, { rootMargin: "300px" }).observe(at("tunnels"));
  follow("facts", followFacts);
}

// ---- the token ----

let asking = false;

function signIn() {
  if (asking) return;
  asking = true;
  paused = true;
  at("main").hidden = true;
  at("pause").hidden = true;
  at("sections").hidden = true;
  at("gate").hidden = false;
  at("lamp").className = "lamp";
  set(at("live-text"), "not signed in");
  at("token").focus();
  at("sign-in").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = at("token").value.trim();
    set(at("gate-fault"), "");
    try {
      if (!/^[!-~]+$/.test(token)) throw new Error("HTTP 401");
      await ask("/ui/session", { Authorization: `Bearer ${token}` });
      location.reload();
    } catch (fault) {
      set(at("gate-fault"), fault.message === "HTTP 401" ? "That is not the token." : `The gateway did not answer (${fault.message}).`);
      at("token").select();
    }
  });
}

if (document.documentElement.dataset.access === "token") signIn();
else begin();
