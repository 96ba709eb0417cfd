// The part of a query picture to search with: a rectangle that is dragged over it, or moved by keys. Gradio's own editor
// would give a cropped copy; here the picture stays as it is, and the part stands in the address.
() => {
  const LEAST = 8; // pixels that a pointer may move in a click
  const STEP = 0.05;
  const KEYS = {
    ArrowLeft: [-STEP, 0, -STEP, 0],
    ArrowRight: [STEP, 0, STEP, 0],
    ArrowUp: [0, -STEP, 0, -STEP],
    ArrowDown: [0, STEP, 0, STEP],
    '+': [STEP, STEP, -STEP, -STEP],
    '-': [-STEP, -STEP, STEP, STEP],
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const fieldOf = (element) => element.closest?.('.query-picture');
  const valueOf = (field) => document.querySelector(`#${field.id}-part :is(textarea, input)`);
  const read = (field) => (valueOf(field)?.value ? valueOf(field).value.split(',').map(Number) : null);

  // Where the picture itself lies: an img may be larger than what it shows.
  const area = (img) => {
    const box = img.getBoundingClientRect();
    const scale = Math.min(1, box.width / img.naturalWidth, box.height / img.naturalHeight);
    const [width, height] = [img.naturalWidth * scale, img.naturalHeight * scale];
    return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
  };

  const draw = (field, part) => {
    const img = field.querySelector('.image-frame img');
    field.querySelector('.part')?.remove();
    if (!img) return;
    const frame = img.parentElement;
    frame.tabIndex = 0;
    frame.setAttribute('role', 'group');
    frame.setAttribute('aria-label', img.alt);
    frame.setAttribute('aria-describedby', `${field.id}-hint`);
    if (!part || !img.naturalWidth) return;
    const [within, around] = [area(img), frame.getBoundingClientRect()];
    const mark = frame.appendChild(document.createElement('div'));
    mark.className = 'part';
    mark.style.left = `${within.left - around.left + part[0] * within.width}px`;
    mark.style.top = `${within.top - around.top + part[1] * within.height}px`;
    mark.style.width = `${(part[2] - part[0]) * within.width}px`;
    mark.style.height = `${(part[3] - part[1]) * within.height}px`;
  };
  const drawAll = () => document.querySelectorAll('.query-picture').forEach((field) => draw(field, read(field)));

  const search = (field, part) => {
    const input = valueOf(field);
    const value = part ? part.map((edge) => edge.toFixed(3)).join(',') : '';
    draw(field, part);
    if (input.value === value) return;
    input.value = value;
    input.dispatchEvent(new Event('input', { bubbles: true }));
  };

  let drag = null;
  const dragged = (event) => {
    const { img, start } = drag;
    const within = area(img);
    const edges = (from, to, low, size) => [from, to].map((at) => clamp((at - low) / size, 0, 1)).sort((a, b) => a - b);
    const [left, right] = edges(start.x, event.clientX, within.left, within.width);
    const [top, bottom] = edges(start.y, event.clientY, within.top, within.height);
    return (right - left) * within.width < LEAST || (bottom - top) * within.height < LEAST
      ? null
      : [left, top, right, bottom];
  };
  document.addEventListener('pointerdown', (event) => {
    const field = fieldOf(event.target);
    if (!field || event.button || !event.target.matches('.image-frame img')) return;
    drag = { field, img: event.target, start: { x: event.clientX, y: event.clientY } };
  });
  document.addEventListener('dragstart', (event) => fieldOf(event.target) && event.preventDefault());
  document.addEventListener('pointermove', (event) => drag && draw(drag.field, dragged(event)));
  document.addEventListener('pointerup', (event) => {
    if (!drag) return;
    const { field } = drag;
    const part = dragged(event);
    drag = null;
    search(field, part);
  });
  document.addEventListener('pointercancel', () => {
    drag = null;
    drawAll();
  });
  document.addEventListener('keydown', (event) => {
    const field = event.target.matches?.('.image-frame') && fieldOf(event.target);
    if (!field || !(event.key in KEYS || event.key === 'Escape')) return;
    event.preventDefault();
    if (event.key === 'Escape') return search(field, null);
    const [left, top, right, bottom] = read(field) ?? [0, 0, 1, 1];
    const move = KEYS[event.key];
    const moved = [left + move[0], top + move[1], right + move[2], bottom + move[3]];
    if (event.key.startsWith('Arrow') ? Math.min(...moved) < 0 || Math.max(...moved) > 1 : false) return;
    const part = moved.map((edge) => clamp(edge, 0, 1));
    if (part[2] - part[0] < STEP || part[3] - part[1] < STEP) return;
    search(field, part.join() === '0,0,1,1' ? null : part);
  });

  document.addEventListener('part', drawAll);
  window.addEventListener('resize', drawAll);
  document.addEventListener('load', (event) => fieldOf(event.target) && drawAll(), true); // a picture came, or another
}
