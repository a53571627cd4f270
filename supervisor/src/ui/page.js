// Follows the gateway: asks for its facts once a second and shows them. Stands behind elements.js and plots.js in one script.

const PERIOD_MS = 1000, PATIENCE_MS = 5000, LIST_PATIENCE_MS = 10000, MOST_BACKENDS = 500;

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
  let all = pools.flatMap(({ pool, settings, backends }) => backends.map((backend) => ({ pool, settings, backend })));
  const more = Math.max(0, all.length - MOST_BACKENDS);
  // Where there are too many for a page, those that need somebody come first.
  if (more) all = all.sort((a, b) => (a.backend.state === "Healthy") - (b.backend.state === "Healthy")).slice(0, MOST_BACKENDS);
  const rows = all.map(({ pool, settings, backend }) => {
    const host = backend.address.includes(":") ? `[${backend.address}]` : backend.address;
    const name = `${host}:${backend.port}`;
    return {
      key: JSON.stringify([pool, settings, name]),
      cells: [cell(name), state(backend.state), cell(pool), cell(settings),
        cell(backend.since && ago(backend.since), { title: backend.since }), cell(backend.last, { classes: "wide" })],
    };
  });
  fill(at("backends"), rows, "no backends");
  set(at("more-backends"), more ? `and ${number.format(more)} more: holdfast health` : "");
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

function showTunnels({ total, matching, tunnels, missing }) {
  const rows = tunnels.map((it) => ({
    key: JSON.stringify([it.listener, it.id]),
    cells: [cell(it.client), cell(it.site, { title: `listener ${it.listener}` }), cell(it.pool, { title: `settings ${it.settings}` }),
      cell(it.backend), cell(span(it.age_seconds), { classes: "n", title: it.opened }), cell(span(it.idle_seconds), { classes: "n" }),
      cell(bytes(it.bytes_in), { classes: "n", title: `${it.bytes_in} bytes` }), cell(bytes(it.bytes_out), { classes: "n", title: `${it.bytes_out} bytes` }),
      cell(rate(it.rate_in), { classes: "n" }), cell(rate(it.rate_out), { classes: "n" }),
      cell(it.id, { title: it.trace_id ? `trace ${it.trace_id}` : "", note: notes(it) })],
  }));
  fill(at("open-tunnels"), rows, total ? "no tunnel matches" : missing.length ? "none was told of" : "no tunnels");
  at("missing").hidden = missing.length === 0;
  set(at("missing"), missing.join("; "));
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

async function ask(where, { headers = {}, patience = PATIENCE_MS } = {}) {
  const answer = await fetch(where, { headers, cache: "no-store", signal: AbortSignal.timeout(patience) });
  if (answer.status === 401 && !headers.Authorization) signIn();
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

let paused = false, heard = null, visible = false;
const turns = {};

// How the page itself is: following, held still, or told nothing, and why.
function tell(fault) {
  document.body.classList.toggle("stale", Boolean(fault));
  const lamp = fault ? "lamp bad" : paused ? "lamp" : "lamp good";
  if (at("lamp").className !== lamp) at("lamp").className = lamp;
  set(at("live-text"), fault ?? (paused ? "paused" : "live"));
}

// What a gateway that is away looks like; everything else is a fault of this page.
const isSilence = (fault) =>
  ["TimeoutError", "AbortError"].includes(fault.name) || /^HTTP |fetch|network/i.test(fault.message);

// One request at a time of each kind, and the next one a second after its answer: a slow gateway is asked less.
function follow(name, once) {
  const turn = turns[name] = (turns[name] ?? 0) + 1;
  const next = async () => {
    if (turn !== turns[name]) return;
    try {
      if (!paused && !document.hidden) await once();
    } catch (fault) {
      // A fault of this page must not look like a gateway where nothing happens.
      reportError(fault);
      tell("this page has a fault; trying on");
    }
    setTimeout(next, PERIOD_MS);
  };
  next();
}

async function followFacts() {
  try {
    const facts = await ask(`/ui/state.json?run=${run}&after=${last}`);
    show(facts);
    heard = new Date();
    if (!asking) tell();
  } catch (fault) {
    if (!isSilence(fault)) throw fault;
    if (!asking) tell(heard ? `no answer since ${heard.toLocaleTimeString()}; trying on` : "no answer; trying on");
  }
}

async function followTunnels(anyway = false) {
  if (!visible && !anyway) return;
  const query = new URLSearchParams({ search: at("search").value, order: at("order").value, rows: at("rows").value });
  const asked = query.toString();
  try {
    const listed = await ask(`/ui/tunnels.json?${asked}`, { patience: LIST_PATIENCE_MS });
    const wanted = new URLSearchParams({ search: at("search").value, order: at("order").value, rows: at("rows").value });
    // What was typed meanwhile has an answer of its own.
    if (wanted.toString() === asked) showTunnels(listed);
  } catch (fault) {
    if (!isSilence(fault)) throw fault;
    set(at("found"), "no answer; trying on");
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
    tell();
  });
  at("filter").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["search", "order", "rows"]) at(name).addEventListener("input", () => followTunnels(true));
  at("difference-close").addEventListener("click", closeDifference);
  at("difference").addEventListener("keydown", (event) => event.key === "Escape" && closeDifference());
  document.addEventListener("visibilitychange", () => !document.hidden && follow("facts", followFacts));
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
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
      await ask("/ui/session", { headers: { Authorization: `Bearer ${token}` } });
      location.reload();
    } catch (fault) {
      set(at("gate-fault"), fault.message === "HTTP 401" ? "That is not the token." : `The gateway did not answer (${fault.message}).`);
      at("token").select();
    }
  });
}

if (document.documentElement.dataset.access === "token") signIn();
else begin();
