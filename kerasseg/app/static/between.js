// Filling a class in between the axial slices that were drawn on.

// The distance of each pixel from the nearest one that is not inside, in thirds of a pixel.
function depths(inside, nx, ny) {
  const depth = Float32Array.from(inside, (is) => is ? 1e6 : 0);
  const near = [[-1, 0, 3], [0, -1, 3], [-1, -1, 4], [1, -1, 4]];
  for (const way of [1, -1]) {
    for (let step = 0; step < depth.length; step++) {
      const at = way > 0 ? step : depth.length - 1 - step;
      const x = at % nx;
      const y = (at - x) / nx;
      for (const [dx, dy, far] of near) {
        const [i, j] = [x + way * dx, y + way * dy];
        if (i >= 0 && i < nx && j >= 0 && j < ny) depth[at] = Math.min(depth[at], depth[i + nx * j] + far);
      }
    }
  }
  return depth;
}

// Fill a class of a drawing between slices of which it holds the class and differs from `before`;
// an outline in between is the mean of its two neighbours' signed distances, by their distance.
// Returns how many slices were filled.
export function fillBetween(drawing, before, [nx, ny, nz], value) {
  const size = nx * ny;
  const part = (volume, z) => volume.subarray(z * size, (z + 1) * size);
  const drawn = [];
  for (let z = 0; z < nz; z++) {
    const [now, then] = [part(drawing, z), part(before, z)];
    if (now.some((v, i) => v !== then[i]) && now.includes(value)) drawn.push(z);
  }
  const signed = (z) => {
    const inside = part(drawing, z).map((v) => v === value);
    const [within, outside] = [depths(inside, nx, ny), depths(inside.map((is) => 1 - is), nx, ny)];
    return within.map((depth, i) => depth - outside[i]);
  };
  let filled = 0;
  for (let k = 1; k < drawn.length; k++) {
    const [low, high] = [drawn[k - 1], drawn[k]];
    if (high - low < 2) continue;
    const [below, above] = [signed(low), signed(high)];
    for (let z = low + 1; z < high; z++, filled++) {
      const share = (z - low) / (high - low);
      const slice = part(drawing, z);
      for (let i = 0; i < size; i++) if ((1 - share) * below[i] + share * above[i] > 0) slice[i] = value;
    }
  }
  return filled;
}
