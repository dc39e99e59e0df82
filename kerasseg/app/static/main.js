// The page: what is shown of the server's state, and what its buttons do.

import { element, fill, get, make, post, put, remove, say } from "./api.js";
import { showComparison, showLesions, showValues, showVolumes } from "./findings.js";
import { startPrompting, useTool } from "./prompts.js";
import { show as showTray, startSending } from "./send.js";
import { Viewer, colourTable, hasWebGL } from "./viewer.js";

let facts, state;
let first, second = null; // viewers
let hidden = new Set(); // ids of classes that are switched off
let drawing = false;
let pen = 1;
const shown = { scan: sessionStorage.scan || "", job: sessionStorage.job || "", compare: "" };
const planesOnly = !hasWebGL();

const scan = () => state.scans.find((s) => s.id === shown.scan);
const job = () => state.jobs.find((j) => j.id === shown.job && j.scan === shown.scan);
const other = () => state.jobs.find((j) => j.id === shown.compare && j.scan === shown.scan && j.state === "done");
const run = () => state.runs[Number(element("runs").value) || 0];

function classes() {
  const target = (job() && job().target) || run().target;
  const names = target === "binary" ? { tumour: facts.tumour } : facts.labels;
  return Object.entries(names).map(([name, id]) => ({ id, name, colour: facts.colours[name] }));
}

const outcomes = (names) => facts.outcomes.map(([, colour], i) => ({ id: i + 1, name: names[i], colour }));
const ERRORS = ["right", "another class", "missed", "invented"];
const DIFFERENCES = ["both alike", "another class", "only A", "only B"];
const outcomeNames = (layer) => layer === "errors" ? ERRORS : layer.startsWith("difference") ? DIFFERENCES : null;

async function refresh() {
  state = await get("api/state");
  if (!scan() && state.scans.length) shown.scan = state.scans.at(-1).id;
  const words = { waiting: "starting", loading: "loading the model", ready: "ready", failed: "the model cannot be loaded" };
  element("ready").textContent = words[state.ready] || state.ready;
  fill(element("scans"), state.scans.map((s) => [s.id, `${s.name} (${s.shape.join(" × ")})`]), shown.scan);
  element("scan-field").hidden = state.scans.length < 1;
  showJobs();
  updateNeeds();
}

function updateNeeds() {
  const title = (m) => facts.modalities[m] || m;
  const chosen = run();
  const has = scan() && scan().modalities.map((m) => m.key);
  const missing = has ? chosen.modalities.filter((m) => !has.includes(m)) : [];
  element("needs").textContent = `${chosen.network}, needs ${chosen.modalities.map(title).join(", ")}; finds ` +
    `${chosen.channels.join(", ")}.` + (missing.length ? ` This scan has no ${missing.map(title).join(", ")}.` : "");
  element("predict").disabled = !scan() || missing.length > 0;
  element("threshold-field").hidden = chosen.softmax;
  const notes = scan() ? scan().notes : [];
  element("scan-notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
}

function choicesOf(j) {
  const parts = [];
  if (j.choices.mirror !== "run") parts.push(j.choices.mirror === "sides" ? "mirrored" : "no augmentation");
  if (j.choices.threshold) parts.push(`threshold ${j.choices.threshold}`);
  if (!j.choices.postprocessing) parts.push("no post-processing");
  if (j.choices.uncertainty) parts.push("uncertainty");
  return parts.length ? ` (${parts.join(", ")})` : "";
}

function showJobs() {
  const mine = state.jobs.filter((j) => j.scan === shown.scan);
  element("jobs").replaceChildren(...mine.map((j) => {
    const item = make("li", { className: j.id === shown.job ? "on" : "" }, `${j.model}${choicesOf(j)} `);
    if (j.state === "waiting" || j.state === "running") {
      const text = j.state === "waiting"
        ? (state.ready === "ready" ? `place ${Math.max(j.place, 1)} in the queue` : "waits for the model to be loaded")
        : `${j.progress < 0.05 ? "prepares the scan, " : ""}${Math.round(100 * j.progress)} %`;
      const stop = make("button", { type: "button", textContent: "Cancel" });
      stop.addEventListener("click", () => act(() => remove(`api/jobs/${j.id}`)));
      item.append(make("progress", { max: 1, value: j.progress, ariaLabel: "Progress" }), `${text} `, stop);
    } else if (j.state === "done") {
      const button = make("button", { type: "button", textContent: j.id === shown.job ? "shown" : "Show" });
      button.addEventListener("click", () => act(() => showJob(j.id)));
      item.append(`${j.seconds.toFixed(1)} s `, button);
    } else item.append(j.state === "failed" ? j.message : "cancelled");
    return item;
  }));
}

// One thing after the other: what two clicks start must not meet in a viewer.
let last = Promise.resolve();
function act(work, silent = false) {
  if (!silent) say("");
  last = last.then(async () => {
    try { await work(); await refresh(); await showNews(); } catch (error) { say(error.message); }
    poll();
  });
  return last;
}

let timer = null;
function poll() {
  const busy = state.ready !== "ready" && state.ready !== "failed" ||
    state.jobs.some((j) => j.state === "waiting" || j.state === "running");
  clearTimeout(timer);
  if (!busy) return;
  timer = setTimeout(() => act(async () => {}, true), 400);
}

// Show a prediction that has come to its end since the last look.
const seen = new Set();
async function showNews() {
  const done = state.jobs.filter((j) => j.state === "done" && !seen.has(j.id));
  done.forEach((j) => seen.add(j.id));
  const news = done.filter((j) => j.scan === shown.scan).at(-1);
  if (!news || drawing) return;
  await showJob(news.id);
  const [lesion] = news.measures.lesions;
  if (lesion && !planesOnly) first.jump(lesion.position);
}

// Another label must not take the place of the one that is drawn on: Save would overwrite it.
function checkDrawing() {
  if (!drawing) return;
  element("scans").value = shown.scan;
  throw new Error("A label is being corrected: save it or leave it first.");
}

async function showScan(id) {
  checkDrawing();
  const changed = shown.scan !== id;
  shown.scan = sessionStorage.scan = id;
  if (changed) { shown.job = shown.compare = ""; }
  const s = scan();
  if (!s) return;
  element("welcome").hidden = true;
  const flair = s.modalities.find((m) => m.key === "flair") || s.modalities[0];
  fill(element("modality"), s.modalities.map((m) => [`${m.id}`, m.title]), `${flair.id}`);
  showJobs();
  updateNeeds();
  await showImages(false);
  const latest = state.jobs.filter((j) => j.scan === id && j.state === "done").at(-1);
  await showJob(job() ? shown.job : latest ? latest.id : "");
}

async function showImages(keepPlace = true) {
  if (!scan()) return;
  if (planesOnly) { showPlanes(); return; }
  const url = `api/scans/${shown.scan}/${element("modality").value}.nii.gz`;
  element("png").disabled = false;
  for (const viewer of [first, second]) if (viewer) await viewer.showBase(url, keepPlace);
  const flat = scan().shape[0] === 1;
  for (const viewer of [first, second]) if (viewer) viewer.setView(element("view").value, flat);
}

async function showJob(id) {
  checkDrawing();
  shown.job = sessionStorage.job = id;
  if (shown.compare === id) shown.compare = "";
  const j = job();
  const done = j && j.state === "done";
  const layers = [["", "nothing"]];
  if (scan().truth) layers.push(["truth", "the truth"]);
  if (done) {
    layers.push(["label", "the prediction"]);
    if (j.corrected) layers.push(["corrected", "the corrected label"]);
    if (scan().truth) layers.push(["errors", "errors"]);
    run_channels(j).forEach((name, k) => layers.push([`probability-${k}`, `probability of ${name}`]));
    if (j.entropy) layers.push(["entropy", "uncertainty (entropy)"]);
  }
  fill(element("layer"), layers, done ? (j.corrected ? "corrected" : "label") : "");
  const rivals = state.jobs.filter((o) => done && o.scan === shown.scan && o.state === "done" && o.id !== id);
  fill(element("compare"), [["", "nothing"], ...rivals.map((o) => [o.id, `${o.model}${choicesOf(o)}`])], shown.compare);
  element("findings").hidden = !done;
  if (done) showFindings(j);
  showClasses();
  showJobs();
  await showCompared();
}

// The channels of a run as the server numbers them: with the background where there is one.
function run_channels(j) {
  const r = state.runs[j.run];
  return r.softmax ? ["background", ...r.channels] : r.channels;
}

function showFindings(j) {
  const measures = j.corrected || j.measures;
  showVolumes(measures);
  showLesions(measures, (lesion) => planesOnly ? showPlanes(lesion.place) : first.jump(lesion.position));
  const links = [["label", "label"], ["probabilities", "probabilities"], ["report", "report"], ["csv", "CSV"], ["json", "JSON"]];
  if (j.corrected) links.unshift(["corrected", "corrected label"]);
  element("downloads").replaceChildren(...links.map(([what, text]) =>
    make("a", { className: "button", href: `api/jobs/${j.id}/download/${what}`, textContent: text, download: "" })));
  element("job-notes").replaceChildren(...j.notes.filter((n) => !scan().notes.includes(n)).map((note) => make("li", { textContent: note })));
  element("correct").disabled = planesOnly;
}

function showClasses() {
  element("classes").replaceChildren(...classes().map(({ id, name, colour }) => {
    const button = make("button", { type: "button", className: "chip", ariaPressed: String(!hidden.has(id)), title: `Show or hide ${name}` }, make("i"), name);
    button.style.setProperty("--shade", colour);
    button.addEventListener("click", () => {
      if (hidden.has(id)) hidden.delete(id); else hidden.add(id);
      showClasses();
      act(showLayer);
    });
    return button;
  }));
}

function layerOf(j, name) {
  if (!name || !j && name !== "truth") return [null, null];
  const label = ["label", "corrected", "truth"].includes(name);
  const table = label ? colourTable(classes(), hidden)
    : outcomeNames(name) ? colourTable(outcomes(outcomeNames(name))) : null;
  const url = name === "truth" ? `api/scans/${shown.scan}/truth.nii.gz` : `api/jobs/${j.id}/${name}.nii.gz`;
  return [url, table];
}

async function showLayer() {
  if (drawing) return;
  if (planesOnly) { showPlanes(); return; }
  const name = element("layer").value;
  const rival = other();
  await first.showLayer(...layerOf(job(), name));
  if (second && rival) {
    const fits = rival[name] || name.startsWith("probability") || ["label", "truth", "errors", ""].includes(name) ? name : "label";
    await second.showLayer(...layerOf(rival, fits));
  }
  const keys = outcomeNames(name) ? outcomes(outcomeNames(name)) : [];
  const parts = keys.map(({ name: text, colour }) => {
    const swatch = make("span", {}, make("i"), text);
    swatch.style.setProperty("--shade", colour);
    return swatch;
  });
  if (name.startsWith("probability") || name === "entropy") parts.push("dark to bright: 5 to 100 %");
  element("legend").replaceChildren(...parts);
}

async function showCompared() {
  shown.compare = element("compare").value;
  const rival = other();
  element("second").hidden = !rival;
  const layer = element("layer");
  [...layer.options].filter((o) => o.value.startsWith("difference")).forEach((o) => o.remove());
  element("caption-a").textContent = rival ? `A: ${job().model}${choicesOf(job())}` : "";
  if (rival) {
    layer.append(make("option", { value: `difference-${rival.id}`, textContent: "difference of A and B" }));
    element("caption-b").textContent = `B: ${rival.model}${choicesOf(rival)}`;
    if (!second && !planesOnly) {
      second = new Viewer(element("view-b"), atLocation);
      await second.start();
      second.setOpacity(first.opacity);
      second.outline = first.outline;
    }
  }
  await showImages();
  await showLayer();
  if (rival && second) first.together(second);
  if (job() && job().state === "done") showComparison(job(), rival);
}

function atLocation(at, viewer) {
  if (viewer !== first || !at || !scan()) return;
  const [image, over] = at.values;
  const parts = [`${[...at.mm].slice(0, 3).map((v) => v.toFixed(0)).join(", ")} mm`];
  if (image) parts.push(`${element("modality").selectedOptions[0]?.textContent}: ${Math.round(image.value * 100) / 100}`);
  if (over) {
    const name = element("layer").value;
    const found = classes().find((c) => c.id === over.value);
    if (["label", "corrected", "truth"].includes(name)) parts.push(found ? found.name : "background");
    else if (outcomeNames(name)) parts.push(outcomeNames(name)[over.value - 1] || "nothing");
    else parts.push(`${over.value}${name.startsWith("probability") || name === "entropy" ? " %" : ""}`);
  }
  element("location").textContent = parts.join(" · ");
  askValues(voxelAt(at.mm));
}

// The voxel (d, h, w) at a place in mm.
function voxelAt(mm) {
  const found = scan().to_voxel.map((row) => row[0] * mm[0] + row[1] * mm[1] + row[2] * mm[2] + row[3]);
  return found.map((at, axis) => Math.min(Math.max(Math.round(at), 0), scan().shape[axis] - 1));
}

// All that is known at a voxel: asked of the server once the crosshair rests, and read out.
let resting = null;
function askValues(place) {
  clearTimeout(resting);
  resting = setTimeout(async () => {
    const [d, h, w] = place;
    const label = job()?.state === "done" ? `&job=${shown.job}` : "";
    try {
      showValues(await get(`api/scans/${shown.scan}/values?d=${d}&h=${h}&w=${w}${label}`));
    } catch (error) { say(error.message); }
  }, 150);
}

// Without WebGL2: planes that the server draws.
function showPlanes(place) {
  const box = element("planes");
  box.hidden = false;
  element("canvases").hidden = true;
  const names = ["axial", "coronal", "sagittal"];
  const s = scan();
  const flat = s.shape[0] === 1;
  const at = s.shape.map((size, axis) => place ? place[axis] : Math.floor(size / 2));
  askValues(at);
  box.replaceChildren(...names.slice(0, flat ? 1 : 3).map((name, axis) => {
    const image = make("img", { alt: `${name} plane` });
    const load = (index) => {
      const over = element("layer").value && job() ? `&job=${shown.job}` : "";
      image.src = `api/scans/${s.id}/plane.png?axis=${axis}&index=${index}&modality=${element("modality").value}${over}`;
    };
    const slider = make("input", { type: "range", min: 0, max: s.shape[axis] - 1, value: at[axis], ariaLabel: `${name} slice` });
    slider.addEventListener("input", () => {
      at[axis] = Number(slider.value);
      load(at[axis]);
      askValues(at);
    });
    load(at[axis]);
    return make("div", {}, image, slider);
  }));
}

// Correcting

async function startDrawing() {
  const j = job();
  const names = [{ id: 0, name: "eraser", colour: "#ffffff" }, ...classes()];
  element("compare").value = "";
  await showCompared();
  drawing = true;
  await first.draw(layerOf(j, j.corrected ? "corrected" : "label")[0], colourTable(classes()));
  element("layer").value = "";
  element("drawbar").hidden = false;
  element("prompts").hidden = !prompted();
  const choose = (id) => {
    pen = id;
    element("pens").replaceChildren(...names.map(({ id: value, name, colour }) => {
      const button = make("button", { type: "button", className: "chip", ariaPressed: String(value === pen) }, make("i"), name);
      button.style.setProperty("--shade", colour);
      button.addEventListener("click", () => choose(value));
      return button;
    }));
    usePen();
  };
  choose(names[1].id);
}

// The SAM that is asked by points and boxes: the chosen model if it is one.
const prompted = () => [run(), ...state.runs].find((r) => r.prompts);

async function askSam(places) {
  if (!places.every(Boolean)) throw new Error("Point at a slice of the scan.");
  const corners = places.map(voxelAt);
  if (corners.some(([d]) => d !== corners[0][0])) throw new Error("Draw the box on an axial slice.");
  element("location").textContent = "SAM looks at the slice…";
  const bits = await post(`api/scans/${shown.scan}/prompt`, { run: prompted().id, corners });
  first.paint(bits, scan(), corners[0][0], pen);
  first.jump([0, 1, 2].map((axis) => (places[0][axis] + places.at(-1)[axis]) / 2));
}

function usePen() {
  if (drawing) first.pen(pen, element("pen-fill").checked && pen > 0, Number(element("pen-size").value));
}

async function endDrawing() {
  drawing = false;
  useTool("");
  first.endDrawing();
  element("drawbar").hidden = true;
  await refresh();
  await showJob(shown.job);
}

async function saveDrawing() {
  const data = await first.drawing();
  const saved = await put(`api/jobs/${shown.job}/drawing`, data);
  first.layer = null; // the corrected label is another one now
  await endDrawing();
  return saved;
}

async function savePng() {
  const link = make("a", { href: URL.createObjectURL(await first.png()), download: `${scan().name}.png` });
  link.click();
  URL.revokeObjectURL(link.href);
}

// Predict a new scan, and show it meanwhile: drawing a large one takes a browser seconds.
async function begin(made) {
  try { await predict(made.id); } finally { await refresh(); await showScan(made.id); }
}

async function predict(id = shown.scan) {
  const threshold = Number(element("threshold").value) / 100;
  const choices = {
    mirror: element("mirror").value,
    threshold: threshold && !run().softmax ? threshold : null,
    postprocessing: element("postprocessing").checked,
    uncertainty: element("uncertainty").checked,
  };
  await post("api/jobs", { scan: id, run: run().id, choices });
}

function wire() {
  const on = (id, name, work) => element(id).addEventListener(name, () => act(work));
  on("example", "click", async () => {
    await begin(await post("api/example"));
  });
  on("scans", "change", () => showScan(element("scans").value));
  on("predict", "click", () => predict());
  on("modality", "change", () => showImages());
  on("view", "change", () => showImages());
  on("layer", "change", showLayer);
  on("compare", "change", showCompared);
  on("correct", "click", startDrawing);
  on("save", "click", saveDrawing);
  on("discard", "click", endDrawing);
  on("undo", "click", async () => first.nv.drawUndo());
  on("between", "click", async () => {
    if (!pen || !first.fillBetween(pen)) throw new Error("Draw a class on two axial slices with others between them first.");
  });
  on("png", "click", savePng);
  for (const name of ["point", "box"]) element(`tool-${name}`).addEventListener("click", () => useTool(name));
  for (const id of ["pen-size", "pen-fill"]) element(id).addEventListener("input", usePen);
  element("runs").addEventListener("change", () => { updateNeeds(); showTray(); });
  element("opacity").addEventListener("input", () => {
    for (const viewer of [first, second]) if (viewer) viewer.setOpacity(element("opacity").value / 100);
  });
  on("outline", "change", async () => {
    for (const viewer of [first, second]) if (viewer) viewer.outline = element("outline").checked;
    await showLayer();
  });
  element("threshold").addEventListener("input", () => {
    const value = Number(element("threshold").value);
    element("threshold-value").textContent = value ? (value / 100).toFixed(2) : "as the run says";
  });
  element("alert").querySelector("button").addEventListener("click", () => say(""));
  const theme = (name) => { document.documentElement.dataset.theme = localStorage.theme = name; };
  theme(localStorage.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  element("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

async function start() {
  facts = await get("api/facts");
  state = await get("api/state");
  fill(element("runs"), state.runs.map((r) => [`${r.id}`, r.name]), "0");
  wire();
  startSending({
    facts, needed: run,
    done: (made) => act(() => begin(made)),
  });
  if (!planesOnly) {
    first = new Viewer(element("view-a"), atLocation);
    await first.start();
    startPrompting(first, (places) => act(() => askSam(places)));
  } else element("canvases").hidden = true;
  await refresh();
  state.jobs.filter((j) => j.state === "done").forEach((j) => seen.add(j.id));
  if (state.scans.length) await showScan(shown.scan);
  poll();
  for (const id of ["example", "files", "folder"]) element(id).disabled = false;
  document.documentElement.dataset.started = "yes";
}

start().catch((error) => say(error.message));
