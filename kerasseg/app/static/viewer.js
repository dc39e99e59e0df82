// One canvas with NiiVue: a modality, and one layer over it.

import { fillBetween } from "./between.js";

const { Niivue, NVImage, cmapper } = window.niivue;
const VIEWS = { axial: 0, coronal: 1, sagittal: 2, multi: 3, render: 4 };

// Steps of the crosshair in voxels (right, front, top): the right side is on the left.
const KEYS = {
  ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
  PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};

export const hasWebGL = () => Boolean(document.createElement("canvas").getContext("webgl2"));

// NiiVue's table of colours for a label: ids that are switched off are transparent.
export function colourTable(entries, hidden = new Set()) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
  for (const { id, name, colour } of entries) {
    table.R.push(parseInt(colour.slice(1, 3), 16));
    table.G.push(parseInt(colour.slice(3, 5), 16));
    table.B.push(parseInt(colour.slice(5, 7), 16));
    table.A.push(hidden.has(id) ? 0 : 255);
    table.I.push(id);
    table.labels.push(name);
  }
  return table;
}

// A label without the voxels whose neighbours in the axial plane all have the same class.
function outlined(image) {
  const [, nx, ny, nz] = image.hdr.dims;
  const sizes = [nx, ny, nz];
  const steps = [1, nx, nx * ny];
  const axial = image.permRAS.findIndex((axis) => Math.abs(axis) === 3);
  const axes = [0, 1, 2].filter((axis) => axis !== axial);
  const from = image.img;
  const to = from.slice();
  for (let at = 0; at < from.length; at++) {
    if (!from[at]) continue;
    const inside = axes.every((axis) => {
      const place = Math.floor(at / steps[axis]) % sizes[axis];
      return place > 0 && place < sizes[axis] - 1 && from[at - steps[axis]] === from[at] && from[at + steps[axis]] === from[at];
    });
    if (inside) to[at] = 0;
  }
  return to;
}

export class Viewer {
  constructor(canvas, onLocation) {
    this.canvas = canvas;
    this.nv = new Niivue({
      isRadiologicalConvention: true, dragAndDropEnabled: false, show3Dcrosshair: true, loadingText: "",
      crosshairColor: [1, 0.75, 0.2, 0.8], crosshairWidth: 0.4, crosshairWidthUnit: "percent",
      multiplanarShowRender: 1, logLevel: "error",
      isNearestInterpolation: false, multiplanarPadPixels: 4, viewModeHotKey: "", clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "", showLegend: false, maxDrawUndoBitmaps: 24, fontMinPx: 11,
    });
    this.nv.onLocationChange = (at) => onLocation(at, this);
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS) || !this.nv.volumes.length) return;
      event.preventDefault(); // the page itself would scroll
      this.nv.moveCrosshairInVox(...KEYS[event.key]);
    });
    canvas.niivue = this.nv; // for the tests of this page
    this.base = this.layer = this.label = null;
    this.opacity = 0.6;
    this.outline = false;
    const draw = this.nv.drawScene.bind(this.nv); // a canvas without a size cannot be drawn on
    this.nv.drawScene = (...given) => canvas.clientWidth ? draw(...given) : undefined;
  }

  async start() {
    await this.nv.attachToCanvas(this.canvas, false);
  }

  // Show the volume at an address below the layer; the place of the crosshair stays.
  async showBase(url, keepPlace) {
    if (this.base === url) return;
    const place = keepPlace ? [...this.nv.scene.crosshairPos] : null;
    const image = await NVImage.loadFromUrl({ url, name: "image.nii.gz", colormap: "gray" });
    if (this.nv.volumes.length) {
      const over = this.nv.volumes[1];
      this.nv.volumes = over ? [image, over] : [image];
      this.nv.back = image;
      this.nv.updateGLVolume();
    } else this.nv.addVolume(image);
    this.base = url;
    if (place) this.nv.scene.crosshairPos = place;
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }

  // Lay a volume over the image: a label with a table of colours, or values from 0 to `most`.
  async showLayer(url, table, most = 100) {
    if (this.layer !== url) {
      const image = url && (await NVImage.loadFromUrl({ url, name: "layer.nii.gz", opacity: this.opacity }));
      if (this.nv.volumes.length > 1) this.nv.removeVolume(this.nv.volumes[1]);
      if (image) this.nv.addVolume(image);
      this.layer = url;
      this.label = image && image.img;
    }
    const image = this.nv.volumes[1];
    if (!image) return;
    image.img = this.label;
    if (table) {
      image.setColormapLabel(table);
      if (this.outline) image.img = outlined(image);
    } else {
      image.colormapLabel = null;
      image.colormap = "inferno";
      image.cal_min = 5;
      image.cal_max = most;
    }
    this.nv.updateGLVolume();
    this.nv.createOnLocationChange();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.nv.volumes.length > 1) this.nv.setOpacity(1, opacity);
    this.nv.setDrawOpacity(opacity);
  }

  setView(name, flat) {
    this.nv.setSliceType(VIEWS[flat ? "axial" : name]);
  }

  jump(mm) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }

  together(other) {
    this.nv.broadcastTo([other.nv], { "2d": true, "3d": true });
    other.nv.broadcastTo([this.nv], { "2d": true, "3d": true });
    other.nv.scene.crosshairPos = [...this.nv.scene.crosshairPos];
    other.nv.drawScene();
  }

  // Draw: the label at an address becomes the drawing, its layer goes.
  async draw(url, table) {
    const image = await NVImage.loadFromUrl({ url, name: "drawing.nii.gz" });
    image.img = Uint8Array.from(image.img);
    await this.showLayer(null);
    this.nv.loadDrawing(image);
    this.before = this.nv.drawBitmap.slice();
    this.nv.drawLut = cmapper.makeDrawLut(table);
    this.nv.setDrawOpacity(this.opacity);
    this.nv.setDrawingEnabled(true);
    this.nv.updateGLVolume();
  }

  pen(value, filled, size) {
    this.nv.opts.penSize = size;
    this.nv.setPenValue(value, filled);
  }

  // Fill a class between the slices that were drawn on. Returns how many were filled.
  fillBetween(value) {
    const filled = fillBetween(this.nv.drawBitmap, this.before, this.nv.back.dimsRAS.slice(1, 4), value);
    if (filled) this.nv.drawAddUndoBitmap();
    this.nv.refreshDrawing(true);
    return filled;
  }

  // Draw a class where the bits of an axial plane (h, w) of a scan are set.
  paint(bits, { shape, to_mm }, plane, value) {
    const sizes = this.nv.back.dimsRAS.slice(1, 4);
    for (let i = 0; i < shape[1] * shape[2]; i++) {
      if (!(bits[i >> 3] & (128 >> (i & 7)))) continue;
      const voxel = [plane, Math.floor(i / shape[2]), i % shape[2], 1];
      const mm = to_mm.map((row) => row.reduce((sum, factor, k) => sum + factor * voxel[k], 0));
      const [x, y, z] = this.nv.mm2frac(mm).map((at, axis) => Math.floor(at * sizes[axis]));
      this.nv.drawBitmap[x + sizes[0] * (y + sizes[1] * z)] = value;
    }
    this.nv.drawAddUndoBitmap();
    this.nv.refreshDrawing(true);
  }

  // The drawing as NIfTI on the grid of the scan's files.
  drawing() {
    return this.nv.saveImage({ filename: "", isSaveDrawing: true });
  }

  endDrawing() {
    this.nv.setDrawingEnabled(false);
    this.nv.closeDrawing();
  }

  png() {
    this.nv.drawScene();
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }
}
