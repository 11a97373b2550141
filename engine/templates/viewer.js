// The case viewer: a slice of 8-bit grey through a window, with the contours of run-length masks on top.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const at = (id) => document.getElementById(id);
  const [stage, canvas, map, slider] = ["v-stage", "v-canvas", "v-map", "v-slice"].map(at);
  const context = canvas.getContext("2d");
  const boxes = (kind) => [...document.querySelectorAll(`#case-viewer input[data-${kind}]`)];
  const layerBoxes = boxes("layer");
  const regionBoxes = boxes("region");
  const colours = layerBoxes.map((box) => getComputedStyle(box.parentElement).getPropertyValue("--contour").trim());
  const state = { number: -1, slice: 0, volume: null };

  // --- Reading a case -------------------------------------------------------------------------------------------

  async function inflate(number) {
    const bytes = Uint8Array.from(atob(at(`case-${number}`).textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  async function readCase(number) {
    const about = data.cases[number];
    const buffer = await inflate(number);
    const [depth, height, width] = about.shape;
    let start = depth * height * width;
    const layers = data.layers.map((name) => {
      const runs = new DataView(buffer, start, 4 * about.runs[name]);
      start += 4 * about.runs[name];
      return indexRuns(runs, depth, height * width);
    });
    return { about, depth, height, width, grey: new Uint8Array(buffer, 0, depth * height * width), layers };
  }

  // Where each slice's runs begin, and how many pixels of each class it has.
  function indexRuns(runs, depth, pixels) {
    const begins = new Uint32Array(depth + 1);
    const counts = Array.from({ length: depth }, () => new Map());
    let run = 0;
    for (let slice = 0; slice < depth; slice++) {
      begins[slice] = run;
      for (let done = 0; done < pixels; run++) {
        const word = runs.getUint32(4 * run, true);
        const [label, length] = [word >>> 24, word & 0xffffff];
        if (label) counts[slice].set(label, (counts[slice].get(label) ?? 0) + length);
        done += length;
      }
    }
    begins[depth] = run;
    return { runs, begins, counts };
  }

  function labelsOf(layer, slice, pixels) {
    const labels = new Uint8Array(pixels);
    let place = 0;
    for (let run = layer.begins[slice]; run < layer.begins[slice + 1]; run++) {
      const word = layer.runs.getUint32(4 * run, true);
      const length = word & 0xffffff;
      labels.fill(word >>> 24, place, (place += length));
    }
    return labels;
  }

  const countOf = (layer, slice, region) =>
    region.classes.reduce((sum, label) => sum + (layer.counts[slice].get(label) ?? 0), 0);

  // --- Drawing --------------------------------------------------------------------------------------------------

  function greyPicture({ about, grey, height, width }) {
    const [low, high] = about.range;
    const [, from, to] = about.windows[at("v-window").selectedIndex];
    const table = Uint8ClampedArray.from({ length: 256 }, (_, level) => {
      const value = low + (level / 255) * (high - low);
      return (255 * (value - from)) / (to - from);
    });
    const picture = new ImageData(width, height);
    const start = state.slice * height * width;
    for (let pixel = 0; pixel < height * width; pixel++) {
      const shade = table[grey[start + pixel]];
      picture.data.set([shade, shade, shade, 255], 4 * pixel);
    }
    const small = document.createElement("canvas");
    [small.width, small.height] = [width, height];
    small.getContext("2d").putImageData(picture, 0, 0);
    return small;
  }

  // The edges between pixels inside and outside of a region, straight pieces joined.
  function contour(labels, classes, width, height) {
    const member = new Uint8Array(256);
    for (const label of classes) member[label] = 1;
    const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && member[labels[y * width + x]] === 1;
    const path = new Path2D();
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x < width; x++) {
        const begin = x;
        while (x < width && inside(y - 1, x) !== inside(y, x)) x++;
        if (x > begin) (path.moveTo(begin, y), path.lineTo(x, y));
      }
    }
    for (let x = 0; x <= width; x++) {
      for (let y = 0; y < height; y++) {
        const begin = y;
        while (y < height && inside(y, x - 1) !== inside(y, x)) y++;
        if (y > begin) (path.moveTo(x, begin), path.lineTo(x, y));
      }
    }
    return path;
  }

  function filling(labels, classes, width, height) {
    const path = new Path2D();
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const begin = x;
        while (x < width && classes.includes(labels[y * width + x])) x++;
        if (x > begin) path.rect(begin, y, x - begin, 1);
      }
    }
    return path;
  }

  const shownRegions = () => data.regions.filter((_, index) => regionBoxes[index]?.checked ?? true);

  function draw() {
    const { about, width, height, layers } = state.volume;
    const ratio = window.devicePixelRatio || 1;
    const room = Math.min(stage.clientWidth, (0.72 * window.innerHeight * width) / (height * about.aspect));
    const scale = room / width;
    canvas.style.width = `${Math.round(room)}px`;
    canvas.style.height = `${Math.round(height * about.aspect * scale)}px`;
    canvas.width = Math.round(room * ratio);
    canvas.height = Math.round(height * about.aspect * scale * ratio);
    context.setTransform(scale * ratio, 0, 0, scale * about.aspect * ratio, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(greyPicture(state.volume), 0, 0);
    // The truth comes last and is dashed, so that networks that agree with it show through.
    for (let index = layers.length - 1; index >= 0; index--) {
      if (!layerBoxes[index].checked) continue;
      const labels = labelsOf(layers[index], state.slice, width * height);
      context.strokeStyle = context.fillStyle = colours[index];
      for (const region of shownRegions()) {
        const last = region === data.regions[data.regions.length - 1];
        context.lineWidth = (last ? 1.8 : 0.9) / scale;
        context.setLineDash(index ? [] : [5 / scale, 5 / scale]);
        context.stroke(contour(labels, region.classes, width, height));
        if (at("v-fill").checked) {
          context.globalAlpha = 0.25;
          context.fill(filling(labels, region.classes, width, height));
          context.globalAlpha = 1;
        }
      }
    }
    if (about.oriented) drawSides(ratio);
    drawMap(ratio);
    describe();
  }

  // The patient's right is on the left, as radiologists look at it.
  function drawSides(ratio) {
    const [w, h] = [canvas.width / ratio, canvas.height / ratio];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    for (const [letter, x, y] of [["R", 10, h / 2 + 4], ["L", w - 10, h / 2 + 4], ["A", w / 2, 15], ["P", w / 2, h - 7]]) {
      context.fillStyle = "#000a";
      context.fillText(letter, x + 1, y + 1);
      context.fillStyle = "#fffc";
      context.fillText(letter, x, y);
    }
  }

  // A row for each layer: the slices on which it has the last region shown, the fuller the stronger.
  function drawMap(ratio) {
    const { depth, layers } = state.volume;
    const [row, wide] = [7, map.clientWidth];
    [map.width, map.height] = [wide * ratio, row * layers.length * ratio];
    map.style.height = `${row * layers.length}px`;
    const paint = map.getContext("2d");
    paint.scale(ratio, ratio);
    const regions = shownRegions();
    const region = regions[regions.length - 1] ?? data.regions[data.regions.length - 1];
    layers.forEach((layer, index) => {
      const counts = layer.counts.map((_, slice) => countOf(layer, slice, region));
      const most = Math.max(1, ...counts);
      paint.fillStyle = colours[index];
      counts.forEach((count, slice) => {
        paint.globalAlpha = count ? 0.35 + (0.65 * count) / most : 0;
        paint.fillRect((slice * wide) / depth, index * row, Math.max(1, wide / depth - 0.5), row - 1.5);
      });
    });
    paint.globalAlpha = 1;
    paint.strokeStyle = getComputedStyle(map).color;
    paint.lineWidth = 1.5;
    paint.strokeRect((state.slice * wide) / depth, 0.75, Math.max(2, wide / depth - 0.5), row * layers.length - 1.5);
  }

  function describe() {
    const { about, depth, layers } = state.volume;
    const source = about.numbers[state.slice];
    const text = `slice ${state.slice + 1} of ${depth}`;
    const whole = depth === about.slices ? "" : ` (number ${source} of the case's ${about.slices}, from 0)`;
    at("v-text").textContent = text + whole;
    slider.setAttribute("aria-valuetext", text);
    stage.setAttribute("aria-valuenow", state.slice + 1);
    stage.setAttribute("aria-valuetext", text);
    const area = (count) => (about.pixel_mm2 ? `${((count * about.pixel_mm2) / 100).toFixed(1)} cm²` : `${count} pixels`);
    at("v-sizes").textContent = data.regions
      .map((region) => {
        const sizes = layers.map((layer, index) => `${data.layers[index]} ${area(countOf(layer, state.slice, region))}`);
        return `${region.name} on this slice: ${sizes.join(", ")}`;
      })
      .join("; ");
  }

  // --- Moving ---------------------------------------------------------------------------------------------------

  let waiting = false;
  function drawSoon() {
    if (waiting || !state.volume) return;
    waiting = true;
    requestAnimationFrame(() => ((waiting = false), draw()));
  }

  function goTo(slice) {
    if (!state.volume) return false;
    const wanted = Math.max(0, Math.min(state.volume.depth - 1, slice));
    const moved = wanted !== state.slice;
    state.slice = wanted;
    slider.value = wanted;
    drawSoon();
    return moved;
  }

  function showLimits() {
    const { windows, unit } = state.volume.about;
    const [, low, high] = windows[at("v-window").selectedIndex];
    at("v-limits").textContent = `${Math.round(low)} to ${Math.round(high)} ${unit}`;
    drawSoon();
  }

  async function open(number) {
    if (number === state.number) return;
    state.number = number;
    const volume = await readCase(number);
    if (state.number !== number) return; // Another one was chosen meanwhile.
    const { about } = (state.volume = volume);
    at("v-case").value = number;
    const chosen = Math.max(0, at("v-window").selectedIndex);
    at("v-window").replaceChildren(...about.windows.map(([name]) => new Option(name)));
    at("v-window").selectedIndex = chosen;
    slider.max = volume.depth - 1;
    stage.setAttribute("aria-label", `slices of case ${about.name}`);
    stage.setAttribute("aria-valuemin", 1);
    stage.setAttribute("aria-valuemax", volume.depth);
    const smaller = about.step > 1 ? `Shown with every ${about.step}th pixel, to keep the page small. ` : "";
    at("v-note").textContent = `${smaller}Cropped to what the truth and the networks mark, with a margin.`;
    state.slice = about.start;
    showLimits();
    goTo(about.start);
  }

  const keys = {
    ArrowUp: () => goTo(state.slice + 1),
    ArrowRight: () => goTo(state.slice + 1),
    ArrowDown: () => goTo(state.slice - 1),
    ArrowLeft: () => goTo(state.slice - 1),
    PageUp: () => goTo(state.slice + 10),
    PageDown: () => goTo(state.slice - 10),
    Home: () => goTo(0),
    End: () => goTo(Infinity),
    n: () => open((state.number + 1) % data.cases.length),
    p: () => open((state.number + data.cases.length - 1) % data.cases.length),
    w: () => {
      at("v-window").selectedIndex = (at("v-window").selectedIndex + 1) % at("v-window").length;
      showLimits();
    },
  };

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !state.volume) return;
    const box = layerBoxes[Number(event.key)];
    if (!keys[event.key] && !(event.key.trim() && box)) return;
    event.preventDefault();
    if (keys[event.key]) keys[event.key]();
    else box.click();
  });

  // A notched wheel goes one slice a notch; a touchpad's many small steps add up. At the ends the page scrolls on.
  let scrolled = 0;
  stage.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey) return;
      scrolled += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
      const steps = Math.trunc(scrolled);
      const atEnd = event.deltaY > 0 ? state.slice === 0 : state.slice === (state.volume?.depth ?? 1) - 1;
      if (!atEnd) event.preventDefault();
      if (steps) goTo(state.slice - Math.sign(steps));
      scrolled -= steps;
    },
    { passive: false },
  );

  // A finger drags sideways (up and down scrolls the page), a mouse in any direction.
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, slice: state.slice };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag || !state.volume) return;
    const pixels = event.clientX - drag.x - (event.pointerType === "mouse" ? event.clientY - drag.y : 0);
    goTo(drag.slice + Math.round(pixels / Math.max(5, stage.clientWidth / 2 / state.volume.depth)));
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (drag = null));

  map.addEventListener("pointerdown", (event) => goTo(Math.floor((event.offsetX / map.clientWidth) * state.volume.depth)));
  slider.addEventListener("input", () => goTo(Number(slider.value)));
  at("v-window").addEventListener("change", showLimits);
  at("v-case").addEventListener("change", () => open(Number(at("v-case").value)));
  for (const box of [...layerBoxes, ...regionBoxes, at("v-fill")]) box.addEventListener("change", drawSoon);
  new ResizeObserver(drawSoon).observe(stage);

  // --- From tables and charts to the viewer ----------------------------------------------------------------------

  const numbers = new Map(data.cases.map(({ name }, number) => [name, number]));
  function look(name) {
    open(numbers.get(name));
    at("viewer").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    stage.focus({ preventScroll: true });
  }
  for (const button of document.querySelectorAll("[data-look]")) {
    button.hidden = false;
    button.addEventListener("click", () => look(button.dataset.look));
  }
  for (const mark of document.querySelectorAll("svg [data-case]")) {
    if (!numbers.has(mark.dataset.case)) continue;
    mark.classList.add("pressable");
    mark.addEventListener("click", () => look(mark.dataset.case));
  }

  stage.setAttribute("role", "slider");
  at("case-viewer").hidden = false;
  open(0);
})();
