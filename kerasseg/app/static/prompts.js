// Pointing at a tumour: a point or a box on an axial slice, which a SAM answers.

import { element } from "./api.js";

let tool = ""; // "point", "box", or nothing

export function useTool(name) {
  tool = tool === name ? "" : name;
  for (const each of ["point", "box"]) element(`tool-${each}`).ariaPressed = String(each === tool);
}

// While a tool is used the mouse is not NiiVue's. `asked` gets one place, or two, in mm.
export function startPrompting(viewer, asked) {
  const { canvas, nv } = viewer;
  const band = element("band");
  let from = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const scale = canvas.width / box.width;
    const place = nv.canvasPos2frac([x * scale, y * scale]);
    return { x, y, mm: place[0] < 0 ? null : nv.frac2mm(place) };
  };
  const draw = (to) => {
    band.hidden = !from || tool !== "box";
    if (band.hidden) return;
    const [left, top] = [Math.min(from.x, to.x), Math.min(from.y, to.y)];
    Object.assign(band.style, { left: `${left}px`, top: `${top}px`,
      width: `${Math.abs(to.x - from.x)}px`, height: `${Math.abs(to.y - from.y)}px` });
  };
  const hands = {
    mousedown: (event) => { from = at(event); },
    mousemove: (event) => { if (from) draw(at(event)); },
    mouseup: (event) => {
      const to = at(event);
      const places = tool === "box" ? [from?.mm, to.mm] : [to.mm];
      from = null;
      draw(to);
      if (places.every(Boolean)) asked(places);
    },
  };
  for (const name of ["mousedown", "mousemove", "mouseup", "touchstart", "touchmove", "touchend"]) {
    canvas.parentElement.addEventListener(name, (event) => {
      if (!tool) return;
      event.stopPropagation(); // a tap becomes a click of the mouse
      hands[name]?.(event);
    }, { capture: true, passive: true });
  }
}
