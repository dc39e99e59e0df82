// Choosing files, saying what they are, and sending them.

import { element, fill, make, post, put, remove, say } from "./api.js";
import { convertDicom, isDicom } from "./dicom.js";

let chosen = []; // { file, name, kind, role, error }
let facts, needed, done;

// facts: of the server; needed: returns the run that is chosen; done: called with the new scan.
export function startSending(given) {
  ({ facts, needed, done } = given);
  const drop = element("drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    await choose(await dropped(event.dataTransfer));
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => event.preventDefault());
  for (const id of ["files", "folder"]) {
    element(id).addEventListener("change", async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      await choose(files);
    });
  }
  element("forget").addEventListener("click", forget);
  element("tray").addEventListener("submit", (event) => { event.preventDefault(); send(); });
}

// Every file of a drop, also those in folders.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  async function walk(entry) {
    if (entry.isFile) files.push(await new Promise((ok, no) => entry.file(ok, no)));
    else {
      const reader = entry.createReader();
      for (;;) { // a reader gives at most 100 at a time
        const part = await new Promise((ok, no) => reader.readEntries(ok, no));
        if (!part.length) break;
        for (const child of part) await walk(child);
      }
    }
  }
  for (const entry of entries) await walk(entry);
  return files;
}

async function choose(files) {
  say("");
  files = files.filter((file) => !file.name.startsWith("."));
  if (!files.length) return;
  try {
    const slices = [];
    const others = [];
    for (const file of files) (await isDicom(file) ? slices : others).push(file);
    if (slices.length) others.push(...await convertDicom(slices, new Set([...Object.keys(facts.modalities), ...facts.aliases])));
    files = others;
    const sizes = {};
    for (const file of files) sizes[file.name] = file.size;
    if (Object.keys(sizes).length < files.length) {
      throw new Error("Two of the files have the same name: choose one scan at a time.");
    }
    const found = await post("api/look", { files: sizes });
    const read = found.filter((entry) => !entry.error);
    if (!read.length) throw new Error(found[0].error);
    const byName = new Map(files.map((file) => [file.name, file]));
    chosen = read.map((entry) => ({ ...entry, file: byName.get(entry.name) }));
    const passed = found.length - read.length;
    if (passed) say(`${passed} file(s) are passed over: ${found.find((entry) => entry.error).error}`);
    show();
  } catch (error) { say(error.message); }
}

const roles = () => [["", "not used"], ...Object.entries(facts.modalities),
  ["truth", "the truth"], ["all", "all channels (4-D)"]];

export function show() {
  element("tray").hidden = !chosen.length;
  const named = chosen.filter((entry) => entry.kind === "nifti");
  const shown = named.length ? named : chosen.slice(0, 4);
  const rows = shown.map((entry) => {
    const row = make("tr", {}, make("td", { textContent: entry.file?.shown || entry.name, title: entry.name }));
    const cell = make("td");
    if (entry.kind === "nifti") {
      const select = make("select", { ariaLabel: `What ${entry.name} is` });
      const extra = needed().modalities.filter((m) => !(m in facts.modalities)).map((m) => [m, m]);
      fill(select, [...roles(), ...extra], entry.role);
      select.addEventListener("change", () => { entry.role = select.value; lacking(); });
      cell.append(select);
    } else cell.textContent = entry.kind;
    row.append(cell);
    return row;
  });
  if (shown.length < chosen.length && !named.length) {
    rows.push(make("tr", {}, make("td", { colSpan: 2, textContent: `and ${chosen.length - shown.length} more` })));
  }
  element("tray").querySelector("tbody").replaceChildren(...rows);
  lacking();
}

// Say what the chosen model lacks, before anything is sent.
function lacking() {
  if (!chosen.length) return;
  const text = element("lacking");
  const nifti = chosen.filter((entry) => entry.kind === "nifti");
  const send = element("tray").querySelector("[type=submit]");
  text.classList.remove("bad");
  send.disabled = false;
  if (!nifti.length || nifti.some((entry) => entry.role === "all")) { text.textContent = ""; return; }
  const has = new Set(nifti.map((entry) => entry.role));
  const missing = needed().modalities.filter((m) => !has.has(m));
  const count = (role) => nifti.filter((entry) => entry.role === role).length;
  const twice = [...has].find((role) => role && count(role) > 1);
  const title = (m) => facts.modalities[m] || m;
  if (twice) text.textContent = `Two files are ${title(twice)}: choose what each of them is.`;
  else if (missing.length) {
    text.textContent = `The scan has no ${missing.map(title).join(", ")}, which the model ${needed().name} needs: ` +
      "add it, say which file it is, or choose another model.";
  } else { text.textContent = "Nothing is missing."; return; }
  text.classList.add("bad");
  send.disabled = true;
}

async function forget() {
  chosen = [];
  show();
  try { await remove("api/files"); } catch (error) { say(error.message); }
}

async function send() {
  const bar = element("sending");
  const buttons = element("tray").querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  bar.hidden = false;
  const total = chosen.reduce((sum, entry) => sum + entry.size, 0) || 1;
  let before = 0;
  try {
    let tray = [];
    const fresh = chosen.filter((entry) => entry.file);
    if (fresh.length) await remove("api/files");
    for (const entry of fresh) {
      const path = `api/files?name=${encodeURIComponent(entry.name)}&role=${encodeURIComponent(entry.role)}`;
      tray = await put(path, entry.file, (sent) => { bar.value = (before + sent) / total; });
      before += entry.size;
    }
    if (fresh.some((entry) => entry.kind === "zip")) {
      chosen = tray; // what is in the zip can now be seen, and changed
      show();
      if (element("lacking").classList.contains("bad")) return;
    }
    const given = fresh.length ? {} : Object.fromEntries(chosen.map((entry) => [entry.name, entry.role]));
    const scan = await post("api/scans", { run: needed().id, roles: given });
    chosen = [];
    show();
    await done(scan);
  } catch (error) {
    say(error.message);
  } finally {
    bar.hidden = true;
    buttons.forEach((button) => { button.disabled = false; });
    lacking();
  }
}
