// Tables of what is known of a prediction.

import { element, make, number } from "./api.js";

const SCORES = [["dice", "Dice"], ["iou", "IoU"], ["precision", "prec."], ["recall", "recall"], ["hd95", "HD95"]];

function table(head, rows) {
  return make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", textContent: text })))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) =>
      cell instanceof Node ? make("td", {}, cell) : make("td", { textContent: cell }))))));
}

export function showVolumes(measures) {
  const scored = Object.keys(measures.scores).length > 0;
  const head = ["", "mL", ...(scored ? SCORES.map(([, title]) => title) : [])];
  const rows = Object.entries(measures.volumes).map(([name, volume]) => [name, number(volume),
    ...(scored ? SCORES.map(([key]) => number(measures.scores[name]?.[key], key === "hd95" ? 1 : 3)) : [])]);
  element("volumes").replaceChildren(table(head, rows));
  element("volumes-note").textContent = scored ? "Scores are against the truth that came with the scan; HD95 in mm." : "";
}

export function showLesions(measures, jump) {
  if (!measures.lesions.length) {
    element("lesions").replaceChildren("No tumour was found.");
    return;
  }
  const rows = measures.lesions.map((lesion, index) => {
    const button = make("button", { type: "button", textContent: `${index + 1}`, ariaLabel: `Jump to lesion ${index + 1}` });
    button.addEventListener("click", () => jump(lesion));
    return [button, number(lesion.volume), `${number(lesion.diameter, 0)} × ${number(lesion.across, 0)}`, lesion.slice];
  });
  const parts = [table(["go to", "mL", "size [mm]", "slice"], rows)];
  if (measures.number > measures.lesions.length) {
    parts.push(make("p", { className: "small", textContent: `${measures.number} in all; the largest are listed.` }));
  }
  element("lesions").replaceChildren(...parts);
}

export function showComparison(first, second) {
  element("compared").hidden = !second;
  if (!second) return;
  const a = first.corrected || first.measures;
  const b = second.corrected || second.measures;
  const rows = [["seconds", number(first.seconds, 1), number(second.seconds, 1), number(second.seconds - first.seconds, 1)]];
  for (const name of Object.keys(a.volumes)) {
    if (!(name in b.volumes)) continue;
    rows.push([`${name} mL`, number(a.volumes[name]), number(b.volumes[name]), number(b.volumes[name] - a.volumes[name])]);
    const one = a.scores[name]?.dice ?? null;
    const other = b.scores[name]?.dice ?? null;
    if (one !== null && other !== null) rows.push([`${name} Dice`, number(one, 3), number(other, 3), number(other - one, 3)]);
  }
  element("comparison").replaceChildren(table(["", "A", "B", "B − A"], rows));
}

// The intensities and the class at the crosshair.
export function showValues({ intensities, label, truth }) {
  const parts = intensities.map(([title, value]) => `${title} ${Math.round(100 * value) / 100}`);
  const classes = [label && `prediction: ${label}`, truth && `truth: ${truth}`].filter(Boolean);
  element("values").textContent = [parts.join(", "), ...classes].join(" · ");
}
