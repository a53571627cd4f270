// The plots of the last minutes, from the points that the gateway has told so far.

const WIDTH = 600, HEIGHT = 150, SPANS_MINUTES = [1, 2, 5, 10];
const SVG = "http://www.w3.org/2000/svg";

let run = "", last = 0, points = [], minutes = 10;

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

// As many minutes as there are points for: a gateway that was just started has no ten.
function measure() {
  const passed = points.length ? (points.at(-1).at_ms - points[0].at_ms) / 60_000 : 0;
  minutes = SPANS_MINUTES.find((span) => span >= passed) ?? SPANS_MINUTES.at(-1);
  document.querySelectorAll(".axis span:first-child").forEach((label) => set(label, `${minutes} min ago`));
}

const place = (point, end) => WIDTH * (1 + (point.at_ms - end) / (minutes * 60_000));

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
    : `none in the last ${minutes} min`;
  set(figure.querySelector("b"), told);
  svg.setAttribute("aria-label", `Handover pauses: ${told}`);
}

function plot() {
  measure();
  plotLines("plot-connections", [(point) => point.connections, (point) => point.tunnels], ["connections", "tunnels"],
    (value) => (value === null ? "–" : number.format(value)), 10);
  const top = Math.max(1, ...points.map((point) => Math.max(point.bytes_in ?? 0, point.bytes_out ?? 0)));
  const unit = 1024 ** Math.floor(Math.log(top) / Math.log(1024));
  plotLines("plot-throughput", [(point) => point.bytes_in, (point) => point.bytes_out], ["from clients", "to clients"], rate, 1, unit);
  plotPauses();
}
