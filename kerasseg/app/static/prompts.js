// Pointing at a tumour: a point or a box on an axial slice, which a SAM answers.

import { element } from "./api.js";

let tool = ""; // "point", "box", or nothing

export function useTool(name) {
  tool = tool === name ? "" : name;
  for (const each of ["point", "box"]) element(`tool-${each}`).ariaPressed = String(each === tool);
  element("view-a").style.touchAction = tool ? "none" : ""; // a finger draws a box, and does not scroll
}

// While a tool is used the first button, or a finger, is not NiiVue's. `asked` gets one place, or two
// corners, in mm; null for what lies on no slice. The key Enter asks at the crosshair.
export function startPrompting({ canvas, nv }, asked) {
  const band = element("band");
  let from = null;
  let to = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    let place = [event.clientX - box.left, event.clientY - box.top].map((v) => v * scale);
    const tile = from ? from.tile : nv.tileIndex(...place);
    let found = nv.canvasPos2frac(place);
    if (from?.mm) { // a box that is drawn beyond the edge of its slice ends there
      const [left, top, width, height] = nv.screenSlices[tile].leftTopWidthHeight;
      place = [[left, left + width], [top, top + height]].map((ends, axis) =>
        Math.min(Math.max(place[axis], Math.min(...ends)), Math.max(...ends)));
      found = nv.screenXY2TextureFrac(...place, tile, false).map((v) => Math.min(Math.max(v, 0), 1));
    }
    return { x: place[0] / scale, y: place[1] / scale, tile, mm: found[0] < 0 ? null : nv.frac2mm(found) };
  };
  const draw = () => {
    band.hidden = !from || tool !== "box";
    if (band.hidden) return;
    const [left, top] = [Math.min(from.x, to.x), Math.min(from.y, to.y)];
    Object.assign(band.style, { left: `${left}px`, top: `${top}px`,
      width: `${Math.abs(to.x - from.x)}px`, height: `${Math.abs(to.y - from.y)}px` });
  };
  const hands = {
    pointerdown: (event) => {
      canvas.setPointerCapture(event.pointerId);
      from = to = at(event);
    },
    pointermove: (event) => {
      if (from) to = at(event);
      draw();
    },
    pointerup: (event) => {
      if (!from) return;
      to = at(event);
      const places = tool === "box" ? [from.mm, to.mm] : [from.mm];
      from = null;
      draw();
      asked(places);
    },
    pointercancel: () => {
      from = null;
      draw();
    },
  };
  for (const name of [...Object.keys(hands), "mousedown", "mousemove", "mouseup", "touchstart", "touchmove", "touchend"]) {
    canvas.parentElement.addEventListener(name, (event) => {
      const second = event.button === 2 || event.buttons === 2; // it changes the contrast
      if (!tool || second || event.isPrimary === false) return;
      event.stopPropagation();
      hands[name]?.(event);
    }, { capture: true, passive: true });
  }
  canvas.addEventListener("keydown", (event) => {
    if (tool === "point" && event.key === "Enter") asked([nv.frac2mm(nv.scene.crosshairPos)]);
  });
}
