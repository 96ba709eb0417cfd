// The map of the library on a canvas, which is zoomed, moved and marked. The fields beside it are told by their ids:
// `map-state` names the files to draw from, `map-area` holds the polygon that is marked, and `map-picked` gets the
// thumbnail of a picture that is clicked. Places on the map are fractions of its side, x to the right and y up, as in the index.
() => {
  const MAX_ZOOM = 40;
  const STEP = 1.6; // of a button or a key
  const BORDER = 16; // pixels around the map
  const CLICK = 6; // pixels that a pointer may move in a click
  const SPRITE = 36; // pixels up to which a picture of the sheet is sharp enough
  const MAX_SIZE = 128;
  const MAX_THUMBNAILS = 100; // that are loaded for a view; three times as many are kept
  const MAX_CORNERS = 32;
  const UNITS = 10000; // in which files and fields have them
  const RING = '#0d9488';
  const ACTIONS = {
    in: () => zoomAt(middle(), STEP),
    out: () => zoomAt(middle(), 1 / STEP),
    whole: () => zoomAt(middle(), 0),
    left: () => moveBy(0.2 * canvas.clientWidth, 0),
    right: () => moveBy(-0.2 * canvas.clientWidth, 0),
    up: () => moveBy(0, 0.2 * canvas.clientHeight),
    down: () => moveBy(0, -0.2 * canvas.clientHeight),
    pick: () => pick(nearest(middle())),
    lasso: () => setLasso(!lasso),
    view: () => mark([[0, 0], [2, 0], [2, 2], [0, 2]].map(([x, y]) => onMap([x * middle()[0], y * middle()[1]]))),
    unmark: () => (lasso ? setLasso(false) : write('map-area', '')),
  };
  const KEYS = {
    '+': 'in', '=': 'in', '-': 'out', _: 'out', Home: 'whole', Enter: 'pick', Escape: 'unmark',
    ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'up', ArrowDown: 'down',
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const fieldOf = (id) => document.querySelector(`#${id} :is(textarea, input)`);
  const write = (id, value) => {
    const field = fieldOf(id);
    if (field.value === value) return;
    field.value = value;
    field.dispatchEvent(new Event('input', { bubbles: true }));
  };

  let canvas = null;
  let map = null; // the points and names of the file, and where the other files are
  let view = { zoom: 1, x: 0.5, y: 0.5 }; // what is in the middle
  let lasso = false; // whether the next pointer draws one
  let corners = []; // of the lasso that is being drawn
  let inside = null; // whether each point is in the area that is marked, if one is
  let hovered = -1;
  const thumbnails = new Map(); // by row, the last that were seen at the end

  const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const scale = () => (Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * BORDER) * view.zoom;
  const onScreen = ([x, y]) => [middle()[0] + (x - view.x) * scale(), middle()[1] - (y - view.y) * scale()];
  const onMap = ([left, top]) => [view.x + (left - middle()[0]) / scale(), view.y - (top - middle()[1]) / scale()];
  const pointOf = (number) => [map.x[number] / UNITS, map.y[number] / UNITS];
  // Pictures grow more slowly than the distances between them, so that they part.
  const sizeNow = () => clamp((0.9 * scale()) / view.zoom ** 0.25 / Math.sqrt(map.shapes.length), 12, MAX_SIZE);

  const show = (zoom, x, y) => {
    const half = 0.5 / zoom;
    view = { zoom, x: clamp(x, half, 1 - half), y: clamp(y, half, 1 - half) };
    draw();
  };
  // Zooms by a factor, so that what lies at one place of the screen comes to lie at another.
  const carry = (from, to, factor) => {
    const [x, y] = onMap(from);
    const zoom = clamp(view.zoom * factor, 1, MAX_ZOOM);
    const side = (scale() / view.zoom) * zoom;
    show(zoom, x - (to[0] - middle()[0]) / side, y + (to[1] - middle()[1]) / side);
  };
  const zoomAt = (place, factor) => carry(place, place, factor);
  const moveBy = (left, top) => carry([0, 0], [left, top], 1);
  const nearest = (place) => {
    const reach = Math.max(24, sizeNow());
    let [found, least] = [-1, reach * reach];
    map.rows.forEach((row, number) => {
      const [left, top] = onScreen(pointOf(number));
      const away = (left - place[0]) ** 2 + (top - place[1]) ** 2;
      if (away < least) [found, least] = [number, away];
    });
    return found;
  };
  let picks = 0; // the same may be picked again
  const pick = (number) => {
    if (number >= 0) write('map-picked', JSON.stringify([`${map.thumbnails}${map.rows[number]}.webp`, (picks += 1)]));
  };

  const setLasso = (on) => {
    [lasso, corners] = [on, []];
    draw();
  };
  const enclosed = (polygon) => {
    const path = new Path2D();
    for (const [x, y] of polygon) path.lineTo(x * UNITS, y * UNITS);
    const plain = document.createElement('canvas').getContext('2d');
    return map.rows.map((row, number) => plain.isPointInPath(path, map.x[number], map.y[number], 'evenodd'));
  };
  const mark = (polygon) => {
    setLasso(false);
    const each = Math.ceil(polygon.length / MAX_CORNERS);
    const kept = polygon.filter((corner, number) => number % each === 0);
    const edges = kept.flat().map((edge) => Math.round(clamp(edge, -1, 2) * UNITS));
    if (enclosed(kept).includes(true)) write('map-area', edges.join('_'));
  };
  const areaNow = () => {
    const edges = fieldOf('map-area')?.value.split('_').map((edge) => edge / UNITS) ?? [];
    return edges.flatMap((x, number) => (number % 2 ? [[edges[number - 1], x]] : []));
  };

  // Drawing.
  let frame = 0;
  const draw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(paint);
  };
  const paint = () => {
    if (!canvas?.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const sides = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== sides[0] || canvas.height !== sides[1]) [canvas.width, canvas.height] = sides;
    const pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    canvas.dataset.view = [view.zoom, view.x, view.y].join();
    canvas.style.touchAction = lasso || view.zoom > 1 ? 'none' : 'pan-y'; // far away a finger moves the page
    canvas.style.cursor = lasso ? 'crosshair' : hovered >= 0 ? 'pointer' : '';
    document.querySelector('#library-map [data-do=lasso]')?.setAttribute('aria-pressed', lasso);
    if (!map) return;
    const size = sizeNow();
    const seen = [];
    map.rows.forEach((row, number) => {
      const [left, top] = onScreen(pointOf(number));
      if (left < -size || top < -size || left > width + size || top > height + size) return;
      seen.push({ number, left, top, away: (left - width / 2) ** 2 + (top - height / 2) ** 2 });
    });
    const colours = getComputedStyle(canvas);
    pen.fillStyle = colours.color;
    for (const { number, left, top } of seen.reverse()) { // dots below pictures
      pen.globalAlpha = inside && !inside[number] ? 0.15 : 1;
      paintPicture(pen, number, left, top, size);
    }
    pen.globalAlpha = 1;
    const focused = canvas.matches(':focus-visible') ? nearest(middle()) : hovered;
    if (focused >= 0) {
      const [left, top] = onScreen(pointOf(focused));
      paintPicture(pen, focused, left, top, size * 1.3);
      outline(pen, () => pen.rect(left - size * 0.7, top - size * 0.7, size * 1.4, size * 1.4), colours);
    }
    if (map.ring) outline(pen, () => pen.arc(...onScreen(map.ring), Math.max(14, size * 0.75), 0, 7), colours);
    const polygon = corners.length ? corners : areaNow();
    if (polygon.length) {
      outline(pen, () => polygon.forEach((corner) => pen.lineTo(...onScreen(corner))), colours, !corners.length);
    }
    paintNames(pen, width, height, colours);
    load(size, seen);
  };
  const outline = (pen, trace, colours, closed = false) => {
    pen.beginPath();
    trace();
    if (closed) pen.closePath();
    for (const [width, colour] of [[6, colours.backgroundColor], [3, RING]]) {
      [pen.lineWidth, pen.strokeStyle] = [width, colour];
      pen.stroke();
    }
  };
  const paintPicture = (pen, number, left, top, size) => {
    const thumbnail = size > SPRITE && thumbnails.get(map.rows[number]);
    const sharp = thumbnail && thumbnail.complete && thumbnail.naturalWidth;
    const shape = sharp ? thumbnail.naturalWidth / thumbnail.naturalHeight : map.shapes[number];
    if (!shape || !(sharp || map.sheet.naturalWidth)) {
      pen.beginPath();
      pen.arc(left, top, 2, 0, 7);
      pen.fill();
      return;
    }
    const [width, height] = shape > 1 ? [size, size / shape] : [size * shape, size];
    const place = [left - width / 2, top - height / 2, width, height];
    if (sharp) return pen.drawImage(thumbnail, ...place);
    const cell = map.sheet.naturalWidth / map.columns;
    pen.drawImage(
      map.sheet, (number % map.columns) * cell, Math.floor(number / map.columns) * cell, cell, cell, ...place);
  };
  const paintNames = (pen, width, height, colours) => {
    pen.font = `600 ${width < 500 ? 11 : 13}px system-ui, sans-serif`;
    [pen.textAlign, pen.textBaseline] = ['center', 'middle'];
    const taken = [];
    for (const [name, x, y] of map.names) {
      const half = pen.measureText(name).width / 2 + 5;
      const [left, top] = onScreen([x / UNITS, y / UNITS]);
      if (left < 0 || top < 0 || left > width || top > height) continue;
      const [at, over] = [clamp(left, half, width - half), clamp(top, 12, height - 12)];
      if (taken.some((each) => Math.abs(each.at - at) < each.half + half && Math.abs(each.over - over) < 20)) continue;
      taken.push({ at, over, half });
      [pen.globalAlpha, pen.fillStyle] = [0.85, colours.backgroundColor];
      pen.fillRect(at - half, over - 9, 2 * half, 18);
      [pen.globalAlpha, pen.fillStyle] = [1, colours.color];
      pen.fillText(name, at, over);
    }
  };

  const address = (path) => {
    const { root, api_prefix: prefix } = window.gradio_config;
    return `${root}${prefix}/file=${path.split('/').map(encodeURIComponent).join('/')}`;
  };
  const picture = (path) => Object.assign(new Image(), { onload: draw, src: address(path) });

  // The thumbnails that are near enough to be looked at, once the map stands still.
  let waiting = 0;
  const load = (size, seen) => {
    clearTimeout(waiting);
    if (size <= SPRITE) return;
    waiting = setTimeout(() => {
      const close = seen.sort((a, b) => a.away - b.away).slice(0, MAX_THUMBNAILS);
      for (const { number } of close.reverse()) {
        const row = map.rows[number];
        const image = thumbnails.get(row) ?? picture(`${map.thumbnails}${row}.webp`);
        thumbnails.delete(row);
        thumbnails.set(row, image);
      }
      for (const row of [...thumbnails.keys()].slice(0, -3 * MAX_THUMBNAILS)) thumbnails.delete(row);
    }, 150);
  };
  let asked = ''; // the file of points that was asked for last
  const refresh = async () => {
    const state = JSON.parse(fieldOf('map-state')?.value || 'null');
    if (state && state.points !== asked) {
      asked = state.points;
      const sheet = picture(state.sheet);
      let points = null;
      try {
        points = await (await fetch(address(state.points))).json();
      } catch {
        if (asked === state.points) asked = ''; // the next time that the tab is opened, it is asked for again
        return;
      }
      if (asked !== state.points) return; // another map came meanwhile
      thumbnails.clear();
      map = { ...points, ...state, sheet };
    }
    if (map) [map.ring, inside] = [state?.ring, areaNow().length ? enclosed(areaNow()) : null];
    draw();
  };
  document.addEventListener('map', refresh);

  // Pointers: one moves the map or draws a lasso, two zoom.
  const pointers = new Map();
  let [start, moved] = [null, false];
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  };
  const between = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const LISTENERS = {
    pointerdown: (event) => {
      if (event.button || !map) return;
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, placeOf(event));
      [start, moved] = [placeOf(event), pointers.size > 1];
      corners = lasso && pointers.size === 1 ? [onMap(start)] : [];
    },
    pointermove: (event) => {
      const place = placeOf(event);
      if (!pointers.has(event.pointerId)) {
        const before = hovered;
        hovered = map && event.pointerType === 'mouse' ? nearest(place) : -1;
        if (hovered !== before) draw();
        return;
      }
      const before = [...pointers.values()];
      pointers.set(event.pointerId, place);
      const now = [...pointers.values()];
      moved ||= apart([start, place]) > CLICK;
      if (now.length === 2) {
        carry(between(before), between(now), apart(now) / Math.max(1, apart(before)));
      } else if (corners.length) {
        corners.push(onMap([clamp(place[0], 0, canvas.clientWidth), clamp(place[1], 0, canvas.clientHeight)]));
        draw();
      } else if (moved && now.length === 1) {
        moveBy(place[0] - before[0][0], place[1] - before[0][1]);
      }
    },
    pointerup: (event) => {
      if (!pointers.delete(event.pointerId)) return;
      if (corners.length && moved) mark(corners);
      else if (!moved && !lasso) pick(nearest(placeOf(event)));
    },
    pointercancel: (event) => {
      pointers.delete(event.pointerId);
      corners = [];
      draw();
    },
    pointerleave: () => {
      hovered = -1;
      draw();
    },
    wheel: (event) => {
      if (view.zoom === 1 && event.deltaY > 0) return; // there is nothing farther: the page is scrolled
      event.preventDefault();
      zoomAt(placeOf(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)));
    },
    keydown: (event) => {
      if (!map || !(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      ACTIONS[KEYS[event.key]]();
    },
    focus: () => draw(),
    blur: () => draw(),
  };
  document.addEventListener('click', (event) => {
    const action = event.target.closest?.('#library-map [data-do]')?.dataset.do;
    if (action && map) ACTIONS[action]();
  });

  // Gradio makes the canvas when its tab is opened, and takes all off it that we set when the language changes.
  const resized = new ResizeObserver(draw);
  const cleared = new MutationObserver(draw);
  new MutationObserver(() => {
    const found = document.querySelector('#library-map canvas');
    if (!found || found === canvas) return;
    canvas = found;
    pointers.clear();
    for (const [name, listener] of Object.entries(LISTENERS)) canvas.addEventListener(name, listener, { passive: false });
    resized.disconnect();
    resized.observe(canvas);
    cleared.disconnect();
    cleared.observe(canvas, { attributeFilter: ['aria-label', 'width'] });
    refresh();
  }).observe(document.body, { childList: true, subtree: true });
}
