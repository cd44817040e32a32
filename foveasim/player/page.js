"use strict";
// Everything that came from a file name is shown by textContent only, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, text, kind) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const hasStd = data.std_full !== null;
const PANELS = [["scene", "scene"], ["glimpse", "what the eye sees"], ["belief", "what it remembers"],
  ["prediction", "what the network predicts"], ...(hasStd ? [["std", "how unsure it is"]] : []), ["error", "how wrong it is"]];
// A dark-to-bright ramp of rising lightness, readable without colour vision (anchors of matplotlib's inferno).
const RAMP = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const LOOKUP = Array.from({length: 256}, (_, i) => {
  const place = i / 255 * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2), part = place - low;
  return RAMP[low].map((v, c) => Math.round(v + part * (RAMP[low + 1][c] - v)));
});
const DASHES = {"-": [], "--": [6, 3], ":": [2, 3], "-.": [7, 3, 2, 3]};
const BORDERS = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"};
const state = {scene: 0, agent: 0, step: 0, measure: Math.max(0, data.measures.findIndex((m) => m.name === data.measure)), timer: null};
const pictures = new Map();

function picture(number) {
  if (!pictures.has(number)) {
    const image = new Image();
    pictures.set(number, new Promise((done) => { image.onload = () => done(image); image.onerror = () => done(null); }));
    image.src = "data:image/jpeg;base64," + data.images[number];
  }
  return pictures.get(number);
}

const story = () => data.stories[state.scene];
const moments = () => story().agents[state.agent];
const measure = () => data.measures[state.measure];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const show = (value, digits, signed) => value === null || value === undefined ? "–"
  : ((signed && value > 0 ? "+" : "") + value.toFixed(digits)).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");

const dark = () => { const asked = document.documentElement.dataset.theme; return asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches; };
// On a dark ground the colours are lighter.
const ink = (agent) => dark() ? `rgb(${[1, 3, 5].map((i) => { const v = Number.parseInt(agent.colour.slice(i, i + 2), 16); return Math.round(v + 0.4 * (255 - v)); })})` : agent.colour;

function canvasOf(node, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  node.width = Math.round(width * ratio);
  node.height = Math.round(height * ratio);
  const pen = node.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

function heat(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b] = LOOKUP[pixels.data[i]];
    pixels.data[i] = r; pixels.data[i + 1] = g; pixels.data[i + 2] = b;
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

function drawGaze(pen, x, y, radius) {
  for (const [width, stroke] of [[4, "rgba(0,0,0,.65)"], [2, "#ffb547"]]) {
    pen.lineWidth = width; pen.strokeStyle = stroke;
    pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); pen.stroke();
  }
}

function drawScanpath(pen, path, width, height) {
  const points = path.slice(0, state.step + 1).map((m) => [m.x * width, m.y * height]);
  for (const [size, stroke] of [[4, "rgba(0,0,0,.6)"], [1.8, "#eef2fa"]]) {
    pen.lineWidth = size; pen.strokeStyle = stroke; pen.lineJoin = "round";
    pen.beginPath(); points.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.stroke();
  }
  const radius = Math.max(7, width / 26);
  pen.font = `600 ${Math.round(radius * 1.15)}px system-ui, sans-serif`;
  pen.textAlign = "center"; pen.textBaseline = "middle";
  points.forEach(([x, y], i) => {
    pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = i === state.step ? "#ffb547" : "rgba(238,242,250,.9)"; pen.fill();
    pen.lineWidth = 1.5; pen.strokeStyle = "rgba(0,0,0,.7)"; pen.stroke();
    pen.fillStyle = "#12141a"; pen.fillText(String(i + 1), x, y + 0.5);
  });
}

let drawing = 0;
async function drawPanels() {
  const turn = ++drawing, path = moments(), moment = path[state.step];
  const found = await Promise.all(PANELS.map(([kind]) => picture(kind === "scene" ? story().image : moment[kind])));
  if (turn !== drawing) return;  // a later step came while these were decoded
  PANELS.forEach(([kind], i) => {
    const node = at("panel-" + kind), width = node.clientWidth || 200, height = width * data.size[0] / data.size[1];
    const pen = canvasOf(node, width, height);
    node.style.height = height + "px";
    if (!found[i]) return;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(kind === "std" || kind === "error" ? heat(found[i]) : found[i], 0, 0, width, height);
    if (kind === "scene") drawScanpath(pen, path, width, height);
    else drawGaze(pen, moment.x * width, moment.y * height, Math.max(4, width / 40));
  });
  document.documentElement.dataset.drawn = `${state.scene}/${state.agent}/${state.step}`;
}

function ticks(low, high) {
  const raw = Math.max(high - low, 1e-9) / 4, unit = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / size - 1e-9) * size; tick <= high + 1e-9 * size; tick += size) found.push(tick);
  return found;
}

// lines: [{points: [value or null], colour, dash, strong, band: [[low, high]]}]
function drawChart(node, lines) {
  const width = node.clientWidth || 400, height = Math.round(width * 0.56), m = measure();
  const pen = canvasOf(node, width, height);
  node.style.height = height + "px";
  const known = lines.flatMap((l) => [...l.points, ...(l.band && l.strong ? l.band.flat() : [])])
    .filter((v) => v !== null && v !== undefined).map((v) => v * m.scale);
  if (!known.length) return;
  let low = Math.min(...known), high = Math.max(...known);
  if (m.lower) low = 0;
  if (high - low < 1e-9) { high += 1; low -= low > 0 ? Math.min(1, low) : 0; }
  const marks = ticks(low, high);
  low = Math.min(low, marks[0]); high = Math.max(high, marks[marks.length - 1]);
  high += 0.05 * (high - low);
  pen.font = "12px system-ui, sans-serif"; pen.fillStyle = colour("dim"); pen.lineWidth = 1;
  const gap = marks.length > 1 ? marks[1] - marks[0] : 1;
  const digits = [0, 1, 2, 3, 4, 5].find((d) => Math.abs(gap * 10 ** d - Math.round(gap * 10 ** d)) < 1e-6 * 10 ** d) ?? 5;
  const labels = marks.map((tick) => show(tick, digits));
  const left = 16 + Math.max(...labels.map((text) => pen.measureText(text).width)), right = width - 14, top = 12, bottom = height - 26;
  const n = lines[0].points.length;
  const X = (i) => n > 1 ? left + i / (n - 1) * (right - left) : (left + right) / 2;
  const Y = (v) => bottom - (v * m.scale - low) / (high - low) * (bottom - top);
  pen.textBaseline = "middle"; pen.textAlign = "right"; pen.strokeStyle = colour("grid");
  marks.forEach((tick, i) => {
    const y = Y(tick / m.scale);
    pen.beginPath(); pen.moveTo(left, y); pen.lineTo(right, y); pen.stroke(); pen.fillText(labels[i], left - 6, y);
  });
  pen.textAlign = "center";
  const every = Math.ceil(n / 12);
  for (let i = 0; i < n; i += every) pen.fillText(String(i + 1), X(i), bottom + 14);
  for (const line of [...lines].sort((a, b) => a.strong - b.strong)) {
    pen.globalAlpha = line.strong ? 1 : dark() ? 0.75 : 0.5; pen.strokeStyle = line.colour; pen.lineWidth = line.strong ? 2.6 : 1.2;
    if (line.band && line.strong && line.band.flat().every((v) => v !== null)) {
      pen.globalAlpha = 0.18; pen.fillStyle = line.colour; pen.beginPath();
      line.band.forEach(([a], i) => i ? pen.lineTo(X(i), Y(a)) : pen.moveTo(X(i), Y(a)));
      [...line.band].reverse().forEach(([, b], i) => pen.lineTo(X(n - 1 - i), Y(b)));
      pen.fill(); pen.globalAlpha = 1;
    }
    pen.setLineDash(DASHES[line.dash].map((part) => part * (line.strong ? 1.6 : 1)));
    pen.beginPath();
    let open = false;
    line.points.forEach((v, i) => {
      if (v === null) { open = false; return; }
      if (open) pen.lineTo(X(i), Y(v)); else pen.moveTo(X(i), Y(v));
      open = true;
    });
    pen.stroke(); pen.globalAlpha = 1; pen.setLineDash([]);
    if (line.strong) line.points.forEach((v, i) => {
      if (v === null) return;
      const now = i === state.step && data.stories.length > 0;
      pen.beginPath(); pen.arc(X(i), Y(v), now ? 5.5 : 3, 0, 2 * Math.PI); pen.fillStyle = now ? colour("gaze") : line.colour; pen.fill();
    });
  }
}

function drawCharts() {
  const m = measure(), line = (points, i, band) => ({points, colour: ink(data.agents[i]), dash: data.agents[i].line, strong: i === state.agent, band});
  if (data.stories.length) {
    drawChart(at("chart"), story().agents.map((path, i) => line(path.map((s) => s.values[m.name]), i)));
  }
  drawChart(at("mean"), m.curves.map((curve, i) => line(curve.map((p) => p[0]), i, curve.map((p) => [p[1], p[2]]))));
}

function interval(three, m, signed) {
  const cell = make("td"), scaled = three.map((v) => v === null ? null : v * m.scale);
  cell.append(make("span", show(scaled[0], m.digits, signed)));
  if (scaled[1] !== null) cell.append(" ", make("span", `[${show(scaled[1], m.digits, signed)}, ${show(scaled[2], m.digits, signed)}]`, "range"));
  return cell;
}

function drawTable() {
  const m = measure(), n = m.curves[0].length, plain = {scale: 1, digits: 2};
  at("summary").textContent = `${m.title}${m.unit ? ", " + m.unit : ""}`;
  at("head").replaceChildren(...["agent", "first", `after ${n}`, "mean", `mean − ${data.reference}`, ...(data.ceiling ? ["gap closed"] : []),
    "seen sharply", "saccade", "returns", "ms a step"].map((text) => make("th", text)));
  const rank = (i) => { const v = m.area[i][0]; return v === null ? Infinity : m.lower ? v : -v; };
  const order = data.agents.map((_, i) => i).sort((a, b) => rank(a) - rank(b));
  at("rows").replaceChildren(...order.map((i) => {
    const agent = data.agents[i], row = make("tr", undefined, i === state.agent ? "picked" : ""), name = make("td");
    const swatch = make("span", undefined, "swatch");
    swatch.style.borderTop = `4px ${BORDERS[agent.line]} ${ink(agent)}`;
    name.append(swatch, agent.label + (agent.privileged ? " *" : ""));
    const d = m.difference[i], cell = agent.label === data.reference ? make("td", "") : interval(d, m, true);
    if (agent.label !== data.reference && d[1] !== null && (d[1] > 0 || d[2] < 0)) cell.firstChild.className = (d[0] < 0) === m.lower ? "good" : "bad";
    row.append(name, make("td", show(m.curves[i][0][0] === null ? null : m.curves[i][0][0] * m.scale, m.digits)), interval(m.curves[i][n - 1], m), interval(m.area[i], m), cell);
    if (data.ceiling) row.append(interval(m.gap[i], plain));
    const percent = (v) => v === null ? "–" : show(100 * v, 0) + " %";
    row.append(make("td", percent(agent.sharp[n - 1])), make("td", show(agent.amplitude, 1) + "°"), make("td", percent(agent.returns)), make("td", show(agent.act_ms, 2)));
    row.addEventListener("click", () => go({agent: i}));
    return row;
  }));
  at("notes").textContent = `Sorted by the mean over the fixations, ${m.lower ? "less" : "more"} is better. Brackets are 95 % bootstrap intervals over scenes; colour: clear of zero. `
    + (data.ceiling ? `Gap closed: 0 is ${data.reference}, 1 is ${data.ceiling}. ` : "") + (data.agents.some((a) => a.privileged) ? "* sees the hidden scene. " : "")
    + `Seen sharply: at half of full acuity or better. A return lands within 2° of an earlier fixation. Times are of one eye among ${data.agents[0].lanes} at once. foveasim ${data.version}.`;
}

function go(change) {
  Object.assign(state, change);
  if (data.stories.length) {
    const last = moments().length - 1;
    state.step = Math.min(Math.max(state.step, 0), last);
    at("scene").value = state.scene; at("agent").value = state.agent;
    at("step").max = last + 1; at("step").value = state.step + 1;
    at("where").textContent = `fixation ${state.step + 1} of ${last + 1}`;
    const now = moments()[state.step], value = now.values[measure().name];
    at("here").textContent = `${show(value === null ? null : value * measure().scale, measure().digits)} ${measure().unit} · ${show(100 * now.sharp, 0)} % seen sharply`;
    drawPanels();
  }
  at("measure").value = state.measure;
  drawCharts();
  drawTable();
  history.replaceState(null, "", `#scene=${state.scene}&agent=${encodeURIComponent(data.agents[state.agent].label)}&step=${state.step + 1}&measure=${measure().name}`);
}

function halt() {
  if (state.timer !== null) clearInterval(state.timer);
  state.timer = null;
  at("play").textContent = "▶ play"; at("play").setAttribute("aria-label", "play");
}

function play() {
  if (state.timer !== null) return halt();
  if (state.step === moments().length - 1) go({step: 0});
  at("play").textContent = "❚❚ pause"; at("play").setAttribute("aria-label", "pause");
  state.timer = setInterval(() => {
    if (state.step < moments().length - 1) go({step: state.step + 1});
    if (state.step === moments().length - 1) halt();
  }, Number(at("speed").value));
  return undefined;
}

const turn = (list, place, by) => (place + by + list.length) % list.length;
const KEYS = {
  ArrowLeft: () => { halt(); go({step: state.step - 1}); },
  ArrowRight: () => { halt(); go({step: state.step + 1}); },
  Home: () => { halt(); go({step: 0}); },
  End: () => { halt(); go({step: Infinity}); },
  ArrowUp: () => go({agent: turn(data.agents, state.agent, -1)}),
  ArrowDown: () => go({agent: turn(data.agents, state.agent, 1)}),
  "[": () => go({scene: turn(data.stories, state.scene, -1)}),
  "]": () => go({scene: turn(data.stories, state.scene, 1)}),
  " ": play,
  t: theme,
};

function theme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  go({});
}

function begin() {
  for (const [name, value] of data.facts) {
    const fact = make("span");
    fact.append(name + " ", make("b", value));
    at("facts").append(fact);
  }
  at("early").hidden = data.whole;
  data.measures.forEach((m, i) => at("measure").append(new Option(m.title, i)));
  data.agents.forEach((a, i) => at("agent").append(new Option(a.label + (a.privileged ? " *" : ""), i)));
  data.stories.forEach((s, i) => at("scene").append(new Option(s.name || `scene ${s.number}`, i)));
  for (const [kind, title] of PANELS) {
    const figure = make("figure"), caption = make("figcaption"), canvas = make("canvas");
    canvas.id = "panel-" + kind;
    canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", title);
    caption.append(make("b", title));
    if (kind === "std" || kind === "error") {
      const scale = make("span", undefined, "scale"), ramp = make("span", undefined, "ramp");
      ramp.style.background = `linear-gradient(90deg, ${RAMP.map((c) => `rgb(${c})`).join(",")})`;
      scale.append("0", ramp, show(data[kind === "std" ? "std_full" : "error_full"], 2));
      caption.append(scale);
    }
    figure.append(caption, canvas);
    at("panels").append(figure);
  }
  if (!data.stories.length) {  // no scenes to step through: the curve of all scenes stays
    at("panels").parentElement.hidden = true;
    at("chart").parentElement.hidden = true;
    for (const id of ["scene", "agent"]) at(id).parentElement.hidden = true;
  }
  at("scene").addEventListener("change", (e) => go({scene: Number(e.target.value)}));
  at("agent").addEventListener("change", (e) => go({agent: Number(e.target.value)}));
  at("measure").addEventListener("change", (e) => go({measure: Number(e.target.value)}));
  at("step").addEventListener("input", (e) => { halt(); go({step: Number(e.target.value) - 1}); });
  at("back").addEventListener("click", KEYS.ArrowLeft);
  at("next").addEventListener("click", KEYS.ArrowRight);
  at("play").addEventListener("click", play);
  at("speed").addEventListener("change", () => { if (state.timer !== null) { halt(); play(); } });
  at("theme").addEventListener("click", theme);
  addEventListener("keydown", (event) => {
    const inSelect = event.target instanceof HTMLSelectElement, onButton = event.target instanceof HTMLButtonElement;
    if (event.ctrlKey || event.metaKey || event.altKey || inSelect || (onButton && event.key === " ")) return;
    if (!(event.key in KEYS) || (!data.stories.length && event.key !== "t")) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  addEventListener("resize", () => go({}));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => go({}));
  const asked = new URLSearchParams(location.hash.slice(1)), whole = (name) => Number.parseInt(asked.get(name), 10);
  const agent = data.agents.findIndex((a) => a.label === asked.get("agent")), m = data.measures.findIndex((one) => one.name === asked.get("measure"));
  go({
    scene: whole("scene") >= 0 && whole("scene") < data.stories.length ? whole("scene") : 0,
    agent: agent >= 0 ? agent : 0,
    step: whole("step") >= 1 ? whole("step") - 1 : Infinity,
    measure: m >= 0 ? m : state.measure,
  });
}

begin();
