"""The link to a search: scripts that write it into the browser's address bar and history, and copy it."""

import json

OURS = ("tab", "method", "example", "id", "like", "dislike", "text", "negative", "weight", "label", "area", "k", "part")
"""The parameters that say what was searched for. Others, Hugging Face's signature of a private Space say, stay."""

# A search is a step of the browser's history, with the picture that its address cannot name: one that was uploaded. The
# address that a page was opened with is only completed.
TO_ADDRESS = """(query, picture, part) => {
  const url = new URL(window.location), ours = %s;
  const opened = !window.history.state?.search && ours.some((name) => url.searchParams.has(name));
  for (const name of ours) url.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(query)) url.searchParams.set(name, value);
  const state = { search: true, picture, part };
  const same = url.href === window.location.href && picture === (window.history.state?.picture ?? picture);
  window.history[same || opened ? 'replaceState' : 'pushState'](state, '', url);
}""" % json.dumps(OURS)  # noqa: UP031 (braces are JavaScript's)

# On the way back and forth, the field with the id `gone-to` gets the address and the picture that the visitor comes to.
BACK_AND_FORTH = """() => {
  let count = 0;
  window.addEventListener('popstate', () => {
    const field = document.querySelector('#gone-to :is(textarea, input)'), url = new URL(window.location);
    if (url.searchParams.has('lang')) {
      url.searchParams.set('lang', document.documentElement.lang);
      window.history.replaceState(window.history.state, '', url);
    }
    const { picture, part } = window.history.state ?? {};
    field.value = JSON.stringify([url.search, picture ?? '', part ?? '', (count += 1)]);
    field.dispatchEvent(new Event('input', { bubbles: true }));
  });
}"""

LANGUAGE_TO_ADDRESS = """(language) => {
  const url = new URL(window.location);
  url.searchParams.set('lang', language);
  window.history.replaceState(window.history.state, '', url);
  document.documentElement.lang = language;
}"""

# A page in a frame may be refused the clipboard; the older way needs only the click.
_COPY = """async (words) => {
  const here = new URL(window.location), host = %s;
  const link = new URL(host ? `https://${host}/` : here.origin + here.pathname);
  for (const name of %s) for (const value of here.searchParams.getAll(name)) link.searchParams.append(name, value);
  const older = () => {
    const field = document.createElement('textarea');
    field.value = link;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  };
  try { await navigator.clipboard.writeText(link); } catch { older(); }
  const button = document.getElementById('share'), [copy, copied] = JSON.parse(words);
  button.textContent = copied;
  setTimeout(() => { button.textContent = copy; }, 2000);
}"""


def copy_script(host: str | None) -> str:
    """The script of a button that copies the address of the search on the page.

    `host` is where a Space is seen by itself: within huggingface.co it is a frame, whose address is not the visitor's.
    """
    return _COPY % (json.dumps(host), json.dumps((*OURS, "lang")))
