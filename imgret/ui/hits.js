// Hearts and crosses over the hits, a line after the last sure match, and labels and ids while the pointer is over a hit.
// The fields beside a gallery are told by its id: `clip-hits` has its answer in `clip-answer`, and writes what is marked
// into `clip-marked`.
() => {
  const fieldOf = (id) => document.querySelector(`#${id} :is(textarea, input)`);
  const prefixOf = (gallery) => gallery.id.slice(0, -'-hits'.length);
  const answers = {}; // by field: the text that was parsed last, and what it says
  const answerOf = (gallery) => {
    const field = `${prefixOf(gallery)}-answer`;
    const text = fieldOf(field)?.value ?? '';
    if (answers[field]?.text !== text) answers[field] = { text, said: text ? JSON.parse(text) : null };
    return answers[field].said;
  };
  const hitOf = (item) => {
    const gallery = item.closest('.hits');
    return answerOf(gallery)?.hits[[...item.parentElement.children].indexOf(item)];
  };

  // The line after the last sure match; none where all are, or none is.
  const drawLine = (gallery) => {
    const { matches = 0, hits = [] } = answerOf(gallery) ?? {};
    [...gallery.querySelectorAll('.gallery-item')].forEach((item, number) => {
      item.classList.toggle('last-match', number === matches - 1 && matches < hits.length);
    });
  };
  const offer = (gallery, words) => {
    const marks = gallery.classList.contains('dislikable') ? ['♥', '✕'] : ['♥'];
    for (const item of gallery.querySelectorAll('.gallery-item')) {
      for (const mark of item.querySelector('.mark') ? [] : marks) {
        const button = item.appendChild(document.createElement('button'));
        button.className = 'mark';
        button.type = 'button';
        button.textContent = mark;
      }
      for (const button of item.querySelectorAll('.mark')) {
        const says = words[button.textContent];
        if (button.title !== says) button.setAttribute('aria-label', (button.title = says));
      }
    }
  };
  const offerAll = () => {
    const words = fieldOf('mark-words')?.value;
    document.querySelectorAll('.hits.likable').forEach((gallery) => {
      drawLine(gallery);
      if (words) offer(gallery, JSON.parse(words));
    });
  };
  new MutationObserver(offerAll).observe(document.body, { childList: true, subtree: true });
  document.addEventListener('answer', offerAll); // another answer may have the same pictures
  offerAll();

  let count = 0;
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('.mark');
    const hit = button && hitOf(button.closest('.gallery-item'));
    if (!hit) return;
    const field = fieldOf(`${prefixOf(button.closest('.hits'))}-marked`);
    field.value = JSON.stringify([button.textContent, hit.id, (count += 1)]); // the same hit may be marked again
    field.dispatchEvent(new Event('input', { bubbles: true }));
  });
  document.addEventListener('pointerover', (event) => {
    const item = event.target.closest?.('.hits.likable .gallery-item');
    const hit = item && hitOf(item);
    if (hit) item.querySelector('.thumbnail-item').title = [hit.label, hit.id].filter(Boolean).join('\n');
  });
}
